"""``phalanx serve``: live decisions over HTTP."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from phalanx.cli_command import parse
from phalanx.cli_service import ServiceOptions

__all__ = ["Serve", "command"]


@dataclass(frozen=True)
class Serve(ServiceOptions):
    """Decides events as they come, over HTTP, with the committee of a run; docs/serving.md has the interface.

    Shadow mode unless --enforce: verdicts are written down and nothing takes effect. Ends in order after a signal, with
    exit code 0; with 3 where the ledger takes nothing more.

    Example: phalanx serve runs/first --port 8414
    """

    folder: Path | None = None
    """Of the service: ledger, keys, tokens, index; RUN-live beside the run unless given."""
    specs: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Specifications to watch and explain, beside those of the run: a file, or a name such as office."""
    shield: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Specifications that a shield keeps, whatever the members vote: a file, or the name shield."""

    def run(self) -> Mapping[str, Any]:
        """Serves until a signal, or makes a token."""
        if self.new_token is not None:
            return self.token(self._folder())
        run = self.checked_run()
        from phalanx.runtime.compile_cache import use_compile_cache
        from phalanx.service.serving import serve

        use_compile_cache()
        return serve(self.service(self._folder() or run), self._model(run))

    def _model(self, run: Path) -> Callable[[], Any]:
        def load() -> Any:
            from phalanx.runtime.specifications import load_specs
            from phalanx.service.model import load_model

            specs = () if self.specs is None else load_specs(self.specs)
            shield = () if self.shield is None else load_specs(self.shield)
            return load_model(run, specs=specs, shield=shield)

        return load

    def _folder(self) -> Path | None:
        return self.folder or self.beside("-live")


def command(arguments: Sequence[str]) -> Serve:
    """The command that the arguments ask for."""
    return parse(Serve, "serve", arguments)
