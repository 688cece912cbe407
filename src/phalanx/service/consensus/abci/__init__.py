"""Messages of ABCI 2.0, generated from CometBFT v0.38.26 (see ``scripts/generate-abci``)."""

from phalanx.errors import ExtraMissingError

try:
    import google.protobuf  # noqa: F401
except ImportError:
    raise ExtraMissingError("protobuf", "up", "a network of nodes") from None

__all__: list[str] = []
