"""``phalanx serve``: live decisions over HTTP."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from phalanx.cli_command import parse
from phalanx.errors import UsageError

__all__ = ["Serve", "command"]

_LOG = logging.getLogger("phalanx")


@dataclass(frozen=True)
class Serve:
    """Decides events as they come, over HTTP, with the committee of a run; docs/serving.md has the interface.

    Shadow mode unless --enforce: verdicts are written down and nothing takes effect. Ends in order after a signal, with
    exit code 0; with 3 where the ledger takes nothing more.

    Example: phalanx serve runs/first --port 8414
    """

    run_dir: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = None
    """Folder that `phalanx train` wrote."""
    folder: Path | None = None
    """Of the service: ledger, keys, tokens, index; RUN-live beside the run unless given."""
    host: str = "127.0.0.1"
    """Where it listens. Another address than loopback needs --tls-cert and --tls-key, or --insecure."""
    port: int = 8414
    """Port; 0: any that is free."""
    enforce: bool = False
    """Let verdicts take effect, within the policy's limits."""
    policy: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Safety policy in TOML (docs/live-safety.md)."""
    tokens: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File of tokens, mode 0600; tokens.txt of the folder unless given. Where it is missing or empty, a token a scope
    is made."""
    new_token: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Instead of serving: make a token of that name, add its hash to the file, and print it, once."""
    scope: Annotated[str, tyro.conf.arg(metavar="SCOPE[,SCOPE]")] = ""
    """Of the new token: ingest, read, approve, kill."""
    specs: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Specifications to watch and explain, beside those of the run: a file, or a name such as office."""
    shield: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Specifications that a shield keeps, whatever the members vote: a file, or the name shield."""
    drift: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Limits of drift and calibration in TOML (docs/serving.md)."""
    tls_cert: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Certificate in PEM."""
    tls_key: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Its key in PEM."""
    insecure: bool = False
    """Listen beyond loopback without TLS: tokens and events can be read on the way."""
    database: Annotated[str | None, tyro.conf.arg(metavar="URL")] = None
    """Of the index: a path, or postgresql://USER@HOST/DATABASE; decisions.sqlite of the folder unless given."""
    webhook_config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Destinations of findings, commands and pages, in TOML (docs/live-safety.md)."""
    keep_days: float = 30.0
    """How long the index keeps decisions; 0: for ever. The ledger keeps all."""
    slots: int | None = None
    """Processes remembered; what the folder was begun with, else 4096, unless given."""
    batch: int = 256
    """Events decided in one step."""
    seed: int = 0
    """Unused: nothing here is random."""
    json: bool = False
    """Print the result as one JSON object, at the end."""

    def run(self) -> Mapping[str, Any]:
        """Serves until a signal, or makes a token."""
        if self.new_token is not None:
            return self._token()
        if self.scope:
            raise UsageError("serve: --scope goes with --new-token NAME. Leave it out")
        if self.run_dir is None:
            raise UsageError("serve: whose committee? Name a run: phalanx serve RUN")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("serve: --tls-cert and --tls-key go together. Give both, or neither")
        if not 0 <= self.port <= 65_535:
            raise UsageError(f"serve: --port {self.port}: expected 0 to 65535")
        for name, value, most in (("slots", self.slots, 2**20), ("batch", self.batch, 4096)):
            if value is not None and not 1 <= value <= most:
                raise UsageError(f"serve: --{name} {value}: expected 1 to {most}")
        if not 0.0 <= self.keep_days <= 36_500.0:
            raise UsageError(f"serve: --keep-days {self.keep_days}: expected 0 to 36500")
        from phalanx.runtime.compile_cache import use_compile_cache
        from phalanx.service.serving import serve

        use_compile_cache()
        return serve(self._config(), self._model())

    def _config(self) -> Any:
        from phalanx.service.drift import WatchConfig
        from phalanx.service.http_server import ServerConfig
        from phalanx.service.policy import SafetyPolicy, read_policy
        from phalanx.service.serving import ServeConfig
        from phalanx.service.webhooks import read_destinations

        policy = SafetyPolicy() if self.policy is None else read_policy(self.policy)
        if policy.enforce and not self.enforce:
            _LOG.warning("%s says enforce; without --enforce it is shadow mode", self.policy)
        return ServeConfig(
            folder=self._folder(),
            host=self.host,
            port=self.port,
            policy=replace(policy, enforce=self.enforce),
            tokens=self.tokens,
            database=self.database,
            insecure=self.insecure,
            slots=self.slots,
            batch=self.batch,
            destinations=() if self.webhook_config is None else read_destinations(self.webhook_config),
            keep_days=self.keep_days,
            watch=WatchConfig() if self.drift is None else WatchConfig.read(self.drift),
            server=ServerConfig(certificate=self.tls_cert, key=self.tls_key),
        )

    def _model(self) -> Callable[[], Any]:
        def load() -> Any:
            from phalanx.runtime.specifications import load_specs
            from phalanx.service.model import load_model

            assert self.run_dir is not None
            specs = () if self.specs is None else load_specs(self.specs)
            shield = () if self.shield is None else load_specs(self.shield)
            return load_model(self.run_dir, specs=specs, shield=shield)

        return load

    def _folder(self) -> Path:
        if self.folder is not None:
            return self.folder
        if self.run_dir is None:
            raise UsageError("serve: which service's? Name the run, --folder, or the file: --tokens FILE")
        run = self.run_dir.resolve()
        return run.with_name(f"{run.name}-live")

    def _token(self) -> Mapping[str, Any]:
        from phalanx.service.tokens import new_token

        if not self.scope:
            raise UsageError(
                "serve: --new-token needs --scope: ingest, read, approve, kill, joined by commas"
            )
        path = self.tokens or self._folder() / "tokens.txt"
        assert self.new_token is not None
        return {
            "token": new_token(path, self.new_token, self.scope.split(",")),
            "name": self.new_token,
            "scopes": self.scope.split(","),
            "file": str(path),
        }

    def render(self, result: Mapping[str, Any]) -> str:
        """A token alone, for a pipe; else what was served."""
        if "token" in result:
            return str(result["token"])
        events, height = f"{result['events']:,}", result["height"]
        return f"served {result['url']} in {result['mode']} mode: {events} events, ledger at height {height}"


def command(arguments: Sequence[str]) -> Serve:
    """The command that the arguments ask for."""
    return parse(Serve, "serve", arguments)
