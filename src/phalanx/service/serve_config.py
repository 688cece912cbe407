"""How a service runs."""

from dataclasses import dataclass
from pathlib import Path

from phalanx.service.drift import WatchConfig
from phalanx.service.endpoints import HttpConfig
from phalanx.service.http_server import ServerConfig
from phalanx.service.policy import SafetyPolicy
from phalanx.service.webhooks import Destination
from phalanx.service.worker import QueueConfig

__all__ = ["ServeConfig"]


@dataclass(frozen=True)
class ServeConfig:
    """How a service runs.

    Attributes:
        folder: of its state; made where it is missing, for its owner alone.
        host, port: where it listens; port 0: any.
        policy: what may take effect.
        tokens: file of tokens; ``tokens.txt`` of the folder unless given.
        database: of the index: a path or a URL; ``decisions.sqlite`` of the folder unless given.
        insecure: whether other addresses than loopback may do without TLS.
        slots: processes remembered; what the folder was begun with, else 4096, unless given.
        batch: events decided in one step.
        destinations: where messages go.
        keep_days: how long the index keeps decisions, from when it got them; 0: for ever. The ledger keeps all.
        watch: limits of drift and calibration.
        queue, http, server: limits.
        patience_s: how long a network of nodes may take until the answer is an alert without a quorum.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8414
    policy: SafetyPolicy = SafetyPolicy()
    tokens: Path | None = None
    database: str | None = None
    insecure: bool = False
    slots: int | None = None
    batch: int = 256
    destinations: tuple[Destination, ...] = ()
    keep_days: float = 30.0
    watch: WatchConfig = WatchConfig()
    queue: QueueConfig = QueueConfig()
    http: HttpConfig = HttpConfig()
    server: ServerConfig = ServerConfig()
    patience_s: float = 5.0

    @property
    def token_file(self) -> Path:
        """Where the hashes of tokens are."""
        return self.tokens or self.folder / "tokens.txt"
