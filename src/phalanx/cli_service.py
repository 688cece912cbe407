"""What ``phalanx serve`` and ``phalanx up`` have in common: a service over HTTP, its limits, its tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from phalanx.errors import UsageError

__all__ = ["ServiceOptions"]


@dataclass(frozen=True)
class ServiceOptions:
    """Options of a service over HTTP."""

    run_dir: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = None
    """Folder that `phalanx train` wrote."""
    host: str = "127.0.0.1"
    """Where it listens. Another address than loopback needs --tls-cert and --tls-key, or --insecure."""
    port: int = 8414
    """Port; 0: any that is free."""
    enforce: bool = False
    """Let verdicts take effect, within the policy's limits."""
    policy: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Safety policy in TOML (docs/live-safety.md)."""
    tokens: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File of tokens, mode 0600; tokens.txt of the service's folder unless given. Where it is missing or empty, a token
    a scope is made."""
    new_token: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Instead of serving: make a token of that name, add its hash to the file, and print it, once."""
    scope: Annotated[str, tyro.conf.arg(metavar="SCOPE[,SCOPE]")] = ""
    """Of the new token: ingest, read, approve, kill."""
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

    def beside(self, suffix: str) -> Path | None:
        """The folder beside the run, as it was named: a link leads nowhere else. None where no run was named."""
        if self.run_dir is None:
            return None
        named = self.run_dir.name not in ("", "..")
        run = (self.run_dir if named else self.run_dir.resolve()).absolute()
        return run.with_name(f"{run.name}{suffix}")

    @property
    def verb(self) -> str:
        """As people call it."""
        return type(self).__name__.lower()

    def checked_run(self) -> Path:
        """The run, once all else was found to be possible.

        Raises:
            UsageError: it is not.
        """
        if self.scope:
            raise UsageError(f"{self.verb}: --scope goes with --new-token NAME. Leave it out")
        if self.run_dir is None:
            raise UsageError(f"{self.verb}: whose committee? Name a run: phalanx {self.verb} RUN")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError(f"{self.verb}: --tls-cert and --tls-key go together. Give both, or neither")
        if not 0 <= self.port <= 65_535:
            raise UsageError(f"{self.verb}: --port {self.port}: expected 0 to 65535")
        for name, value, most in (("slots", self.slots, 2**20), ("batch", self.batch, 4096)):
            if value is not None and not 1 <= value <= most:
                raise UsageError(f"{self.verb}: --{name} {value}: expected 1 to {most}")
        if not 0.0 <= self.keep_days <= 36_500.0:
            raise UsageError(f"{self.verb}: --keep-days {self.keep_days}: expected 0 to 36500")
        return self.run_dir

    def service(self, folder: Path) -> Any:
        """The ``ServeConfig`` of a service over a folder."""
        from phalanx.service.drift import WatchConfig
        from phalanx.service.http_server import ServerConfig
        from phalanx.service.policy import SafetyPolicy, read_policy
        from phalanx.service.serve_config import ServeConfig
        from phalanx.service.webhooks import read_destinations

        given = self.policy
        policy = SafetyPolicy(self.enforce) if given is None else read_policy(given, enforce=self.enforce)
        return ServeConfig(
            folder=folder,
            host=self.host,
            port=self.port,
            policy=policy,
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

    def token(self, folder: Path | None) -> Mapping[str, Any]:
        """Makes the token that was asked for.

        Args:
            folder: of the service; None: not known.

        Raises:
            UsageError: no scope, or nowhere to write it down.
        """
        from phalanx.service.tokens import new_token

        if not self.scope:
            raise UsageError(
                f"{self.verb}: --new-token needs --scope: ingest, read, approve, kill, joined by commas"
            )
        if self.tokens is None and folder is None:
            raise UsageError(
                f"{self.verb}: which service's? Name the run, --folder, or the file: --tokens FILE"
            )
        path = self.tokens or (folder or Path()) / "tokens.txt"
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
