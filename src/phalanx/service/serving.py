"""A service put together over its folder: model, ledger, desk, store, watch and HTTP, started and ended in order.

The folder holds ``ledger/``, ``key.pem`` (the ledger's signing key), ``state`` (a snapshot of the engine),
``decisions.sqlite`` (the index), ``tokens.txt`` (hashes) and ``tokens/`` (those made at the first start),
``settings.json`` (what a restart must not change), ``drift.json`` and, while it runs, ``serving.json``.
"""

import asyncio
import contextlib
import gc
import json
import logging
import math
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phalanx.errors import DataError, PhalanxError, RunError, UsageError
from phalanx.files import write_json
from phalanx.runtime.one_thread import use_one_thread
from phalanx.service.admission import Admission
from phalanx.service.app import create_app
from phalanx.service.clock import Clock, SystemClock
from phalanx.service.commands import Command
from phalanx.service.delivery import Delivery
from phalanx.service.desk import Answer, Desk, DeskConfig
from phalanx.service.endpoints import Backend
from phalanx.service.engine import EngineConfig
from phalanx.service.http_server import bind, is_loopback, make_server
from phalanx.service.indexing import Indexer, StoreIndex
from phalanx.service.intake import Intake
from phalanx.service.keys import SigningKey
from phalanx.service.lateness import Lateness
from phalanx.service.ledger import Ledger
from phalanx.service.metrics import Metrics, Source
from phalanx.service.model import Model
from phalanx.service.outbox import Outbox
from phalanx.service.recall import Recall
from phalanx.service.records import LiveEvent
from phalanx.service.redaction import redact, redact_event
from phalanx.service.serve_config import ServeConfig
from phalanx.service.store import Store
from phalanx.service.syncing import LedgerBrokenError
from phalanx.service.tokens import TokenFile, first_tokens
from phalanx.service.watching import Watching
from phalanx.service.worker import UnavailableError, Worker

__all__ = ["Service", "serve"]

if TYPE_CHECKING:
    from phalanx.service.consensus.gateway import Gateway
    from phalanx.service.consensus.network import Network

_LOG = logging.getLogger("phalanx")
_BACKLOG = 512
_NETWORK_BATCH = 1024  # events that a network decides at once: a batch costs it two rounds, however small


class Service:
    """A service over a folder, from ``open`` to ``close``.

    Attributes:
        url: where it listens.
        desk, worker, watching: its parts.
        notice: what an operator should know at the start.
    """

    def __init__(self, config: ServeConfig, model: Model, clock: Clock) -> None:
        self.config, self.url, self.notice = config, "", ""
        self.metrics = Metrics()
        self._model, self._clock = model, clock
        self._undo = contextlib.ExitStack()
        self._stopping = asyncio.Event()
        self.worker: Worker
        self.desk: Desk
        self.watching: Watching
        self._server: Any = None
        self._delivery: Delivery | None = None
        self._gateway: Gateway | None = None
        self._lateness: Lateness

    @classmethod
    def open(
        cls,
        config: ServeConfig,
        model: Callable[[], Model],
        *,
        clock: Clock | None = None,
        network: "Network | None" = None,
    ) -> "Service":
        """Puts a service together; it listens once it runs.

        Args:
            config: how it runs.
            model: loads what decides; called once all that can be refused quickly was not.
            clock: the time.
            network: of nodes that decide, which runs; None: the model decides here.

        Raises:
            UsageError: an address without TLS, one that is taken, another service over the folder, other settings than
                it was begun with.
            DataError: something that cannot be read or written.
            RunError: the ledger holds decisions that the model does not come to again.
        """
        tls = config.server.certificate is not None and config.server.key is not None
        if not tls and not config.insecure and not is_loopback(config.host):
            raise UsageError(
                f"--host {config.host}: tokens and events would cross the network unencrypted. Give --tls-cert and "
                "--tls-key, or say --insecure"
            )
        with contextlib.ExitStack() as undo:
            bound = bind(config.host, config.port)
            undo.callback(bound.close)
            _LOG.info(
                "loading the committee and compiling what decides: up to a minute, longer the first time"
            )
            service = cls(config, model(), clock or SystemClock())
            service._undo = undo
            if network is not None:
                service._gateway = gateway_to(network, config.patience_s)
                undo.callback(service._gateway.close)
            service._build(bound, "https" if tls else "http")
            service._undo = undo.pop_all()
        return service

    def run(self) -> None:
        """Serves until it is told to end, by a signal or by ``stop``, and ends in order.

        Raises:
            DataError: the ledger took nothing more.
            PhalanxError: the deciding thread failed.
        """
        self.worker.start()
        if self._delivery is not None:
            self._delivery.start()
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self.worker.stop()
            ended = self.worker.join(self.config.server.drain_s)
        if self.worker.failure:
            broken = isinstance(self.worker.error, LedgerBrokenError)
            raise (DataError if broken else PhalanxError)(self.worker.failure)
        if not ended:
            raise PhalanxError(
                "the deciding thread did not end in time; what was acknowledged is in the ledger"
            )

    def stop(self) -> None:
        """Tells it to end; from any thread."""
        self._server.should_exit = True

    def close(self) -> None:
        """Writes what is kept over a restart, and lets go of all it holds."""
        self._undo.close()

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def facts(self) -> dict[str, Any]:
        """What it is, for people and programs."""
        status = self.worker.status
        return {
            "url": self.url,
            "mode": status.mode,
            "folder": str(self.config.folder),
            "tokens": self.notice or str(self.config.token_file),
            "model": status.model,
            "height": status.height,
            "events": status.counters.get("events", 0),
        }

    def _build(self, bound: socket.socket, scheme: str) -> None:
        config, folder = self.config, self.config.folder
        self._socket = bound
        host, port = bound.getsockname()[:2]
        self.url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as problem:
            raise DataError(f"{folder}: cannot be made ({problem.strerror}). Check the path") from None
        settings = folder / "settings.json"
        network = "" if self._gateway is None else self._gateway.network
        engine = EngineConfig(slots=_slots(settings, config, network), batch=config.batch)
        ledger = self._ledger(folder)
        tokens = self._tokens(folder)
        store = Store.open(config.database or str(folder / "decisions.sqlite"))
        self._undo.callback(store.close)
        outbox = self._outbox(store)
        indexer = Indexer(
            store,
            folder / "ledger",
            lambda: ledger.head.height,
            put=outbox.put,
            wall_ns=self._clock.wall_ns,
            days=config.keep_days,
        )
        self.watching = watching = Watching(self._model, config.watch, folder / "drift.json")
        self.desk = Desk(
            folder,
            ledger,
            folder / "ledger",
            self._model,
            config.policy,
            self._clock,
            config=DeskConfig(engine=engine),
            send=lambda commands: self._send(indexer, commands),
            index=indexer.index,
            indexed=ledger.head.height,  # the indexer reads what the store lacks by itself
            sent=outbox.sent_height,
            network=self._gateway,
            opening=self._opening(),
        )
        self._lateness = Lateness(since=self.desk.engine.counters)
        if not settings.exists():
            write_json(settings, {"slots": engine.slots, "network": network})
        self.desk.engine.warm()
        watching.attach(self.desk)
        self._undo.callback(watching.save)
        indexer.start()
        self._undo.callback(indexer.stop)
        self.worker = Worker(
            self.desk,
            config.queue,
            batch=config.batch if self._gateway is None else max(config.batch, _NETWORK_BATCH),
            decided=self._decided,
            failed=indexer.look,
            ticked=self._ticked,
            ended=self._worker_ended,
        )
        backend = self._backend(ledger, tokens, store, indexer, outbox)
        self._server = make_server(create_app(backend), config.server, self._stopping, self.metrics.refuse)
        bound.listen(_BACKLOG)  # whoever reads that it serves may connect
        write_json(folder / "serving.json", {**self.facts(), "pid": os.getpid()})
        self._undo.callback((folder / "serving.json").unlink, missing_ok=True)

    def _ledger(self, folder: Path) -> Ledger:
        path = folder / "key.pem"
        key = SigningKey.load(path) if path.exists() else SigningKey.create(path)
        return self._undo.enter_context(Ledger.open(folder / "ledger", key))

    def _tokens(self, folder: Path) -> TokenFile:
        path = self.config.token_file
        if not path.exists() or not path.stat().st_size:
            self.notice = str(first_tokens(path, folder / "tokens"))
        file = TokenFile(path)
        if not len(file.current()):
            self.notice = str(first_tokens(path, folder / "tokens"))
            file = TokenFile(path)
        return file

    def _opening(self) -> list[tuple[str, dict[str, Any]]]:
        """Who decides from now on, and in which mode."""
        import importlib.metadata

        versions = {name: importlib.metadata.version(name) for name in ("phalanx", "jax")}
        mode = "enforce" if self.config.policy.enforce else "shadow"
        return [
            ("model", {"digest": self._model.digest, "versions": versions}),
            ("mode", {"mode": mode, "why": "start"}),
        ]

    def _ticked(self, desk: Desk) -> None:
        self.watching.ticked()
        self._lateness.look(desk.engine.counters)

    def _decided(self, events: Sequence[LiveEvent], answers: Sequence[Answer], took_s: float) -> None:
        self.metrics.batch(answers, took_s)
        self.watching.decided(events, answers)

    def _send(self, indexer: Indexer, commands: Sequence[Command]) -> None:
        self.metrics.page(sum(command.action == "page" for command in commands))
        indexer.send(commands)

    def _worker_ended(self) -> None:
        try:
            self.watching.look()  # what is left to see, while the desk is this thread's
        except Exception as problem:
            _LOG.error("the last decisions were not looked at for drift: %s", type(problem).__name__)
        finally:
            if self._server is not None:
                self._server.should_exit = True

    def _outbox(self, store: Store) -> Outbox:
        outbox = Outbox(store, self.config.destinations, self._clock)
        given_up = outbox.give_up_unlisted()
        if given_up:
            _LOG.warning("%d messages waited for destinations that are not listed any more", given_up)
        if self.config.destinations:
            self._delivery = Delivery(store, outbox, self._clock, gave_up=self._gave_up)
            self._undo.callback(self._delivery.stop)
            return Outbox(store, self.config.destinations, self._clock, woken=self._delivery.wake)
        return outbox

    def _gave_up(self, destination: str, why: str) -> None:
        """A message never arrived: an operator is called, by whatever still works."""
        about = f"{destination}: {why}"
        with contextlib.suppress(UnavailableError):
            self.worker.act(lambda desk: desk.act(lambda safety: safety.page("delivery", why=about)))

    def _backend(
        self, ledger: Ledger, tokens: TokenFile, store: Store, indexer: Indexer, outbox: Outbox
    ) -> Backend:
        worker, config, watching = self.worker, self.config, self.watching
        admission, recall = (
            Admission(redact_event, self._clock.wall_ns),
            Recall(self.desk.known.passing, store),
        )
        intake = Intake(admission, worker, self.metrics, recall)
        self.metrics.source = Source(
            lambda: replace(worker.status, synced=ledger.synced),
            admission=intake.admission.counts,
            depth=lambda: worker.depth,
            room=config.queue.events,
            dropped=lambda: worker.turned_away,
            watch=lambda: watching.watch.values,
            backlog=lambda: _backlog(outbox),
            index_lag=lambda: indexer.lag,
            voting=None if self._gateway is None else (lambda: self._gateway.voting if self._gateway else 0),
        )

        def notes() -> list[str]:
            behind = ["index-behind"] if indexer.behind else []
            late = ["events-late"] if self._lateness.late else []
            tokens.current()
            old = ["tokens-not-read"] if tokens.problem else []
            return [
                *watching.notes(),
                *behind,
                *late,
                *old,
                *(self._gateway.notes() if self._gateway else []),
            ]

        return Backend(
            intake=intake,
            worker=worker,
            tokens=tokens.current,
            metrics=self.metrics,
            index=StoreIndex(store, indexer),
            head=lambda: ledger.head,
            label=watching.label,
            resumed=watching.resumed,
            notes=notes,
            redact=redact,
            config=config.http,
            stopping=self._stopping,
        )


def serve(
    config: ServeConfig, model: Callable[[], Model], *, network: "Network | None" = None
) -> Mapping[str, Any]:
    """Serves until a signal ends it.

    Args:
        config, model, network: see ``Service.open``.

    Returns:
        What it was, at its end.

    Raises:
        PhalanxError: see ``Service.open`` and ``Service.run``.
    """
    use_one_thread()
    with Service.open(config, model, network=network) as service:
        facts = service.facts()
        made = "new tokens in" if service.notice else "tokens:"
        _LOG.info("serving %s in %s mode; %s %s", facts["url"], facts["mode"], made, facts["tokens"])
        if service.worker.status.killed:
            _LOG.warning("the kill switch is pulled: nothing takes effect until POST /v1/release")
        gc.collect()
        gc.freeze()  # what was loaded lasts: looking through it for garbage takes a tenth of a second each time
        try:
            service.run()
        finally:
            gc.unfreeze()
        return service.facts()


def gateway_to(network: "Network", patience_s: float) -> "Gateway":
    """What the desk asks where a network decides; that takes an extra which serving alone does not."""
    from phalanx.service.consensus.gateway import Gateway

    return Gateway(network, patience_s=patience_s)


def _backlog(outbox: Outbox) -> float:
    try:
        return sum(states.get("waiting", 0) for states in outbox.counts().values())
    except PhalanxError:  # the database is away, which ``index_lag`` shows
        return math.nan


def _slots(settings: Path, config: ServeConfig, network: str) -> int:
    """Processes remembered: what a folder was begun with, for else its decisions would not come out again.

    Args:
        settings: file that keeps it.
        config: what was asked for.
        network: who decides: a network's name; empty: one process.
    """
    if not settings.exists():
        return config.slots or EngineConfig.slots
    try:
        form = json.loads(settings.read_text())
        slots, begun = int(form["slots"]), str(form.get("network", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise RunError(f"{settings}: damaged. Restore it, or name another --folder") from None
    if begun != network:
        whose = [f"by the network {name}" if name else "by one process" for name in (begun, network)]
        raise UsageError(
            f"{settings.parent}: was decided {whose[0]}, not {whose[1]}. Go on with `phalanx "
            f"{'up' if begun else 'serve'}`, or name another --folder"
        )
    if config.slots not in (None, slots):
        raise UsageError(
            f"--slots {config.slots}: {settings.parent} was begun with {slots}, and its decisions depend on it. Give "
            "that, or another --folder"
        )
    return slots
