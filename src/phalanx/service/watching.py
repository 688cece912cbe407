"""The watch over drift beside the desk: what it is shown, what its alarms do, where its state is kept."""

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phalanx.data.columns import UNSEEN
from phalanx.data.row_encoder import RowEncoder
from phalanx.errors import DataError, PhalanxError
from phalanx.files import write_json
from phalanx.service.desk import Answer, Desk
from phalanx.service.drift import Alarm, Batch, Watch, WatchConfig
from phalanx.service.model import Model
from phalanx.service.records import LiveDecision, LiveEvent
from phalanx.verdicts import Verdict

__all__ = ["Watching"]

_LOG = logging.getLogger("phalanx")
_SAVED_EVERY_S = 10.0
_AT_ONCE = 256  # decisions that the watch is shown together: it costs much the same for one
BY = "phalanx"


class Watching:
    """Feeds a watch with decisions, in the desk's thread, and acts on its alarms: an operator is called, and what was
    enforced no longer is. Decisions are gathered, for a tick (``ticked``) at most: single events cost little.

    Args:
        model: whose decisions they are.
        config: limits.
        path: file of the state; one of another model begins anew.
    """

    def __init__(self, model: Model, config: WatchConfig, path: Path) -> None:
        self._model, self._path = model.digest, path
        self._rows = RowEncoder(model.encoder)
        self.watch = _restored(path, model.digest, config)
        self._desk: Desk | None = None
        self._waiting: list[tuple[LiveEvent, LiveDecision]] = []
        self._dirty, self._saved_s = False, time.monotonic()

    def attach(self, desk: Desk) -> None:
        """From now on alarms act on this desk."""
        self._desk = desk

    def notes(self) -> tuple[str, ...]:
        """Measures that are beyond their limits, for those who look at the service's health."""
        return tuple(f"drift-{name}" for name in self.watch.raised)

    def decided(self, events: Sequence[LiveEvent], answers: Sequence[Answer]) -> None:
        """A batch was decided."""
        self._waiting += [
            (event, answer.decision)
            for event, answer in zip(events, answers, strict=True)
            if not answer.repeated
        ]
        if len(self._waiting) >= _AT_ONCE:
            self.look()

    def look(self) -> None:
        """Shows the watch what was gathered, and acts on its alarms."""
        self._act(self._shown())

    def _shown(self) -> list[Alarm]:
        new, self._waiting = self._waiting, []
        if not new:
            return []
        rows = [{**e.attributes, "kind": e.kind, "host": e.host, "subject": e.subject} for e, _ in new]
        category, _ = self._rows.encode(rows)
        n = len(new)
        batch = Batch(
            ids=[event.id for event, _ in new],
            score=np.array([decision.score for _, decision in new], np.float64),
            alerted=np.array([decision.verdict >= Verdict.ALERT for _, decision in new], bool),
            dissent=np.array([bool(decision.dissent) for _, decision in new], bool),
            unseen=(category == UNSEEN).sum(axis=1),
            cells=np.full(n, category.shape[1], np.int64),
        )
        self._dirty = True
        return self.watch.observe(batch)

    def label(self, desk: Desk, labels: Sequence[tuple[str, bool]]) -> int:
        """Takes in what was true of events; how many of them are remembered."""
        self.look()
        known, alarms = self.watch.label(labels)
        self._dirty = True
        self._act(alarms)
        return known

    def resumed(self) -> None:
        """An operator ended shadow mode: where drift was seen, what comes now is what is usual."""
        self._shown()  # of what came before; its alarms must not undo what the operator just did
        if self.watch.raised:
            self.watch.renew()
            self._dirty = True

    def ticked(self) -> None:
        """Looks, and saves the state now and then."""
        self.look()
        if self._dirty and time.monotonic() - self._saved_s >= _SAVED_EVERY_S:
            self.save()

    def save(self) -> None:
        """Writes the state, as of what was looked at."""
        write_json(self._path, {"model": self._model, "watch": self.watch.to_json()})
        self._dirty, self._saved_s = False, time.monotonic()

    def _act(self, alarms: Sequence[Alarm]) -> None:
        desk = self._desk
        if not alarms or desk is None:
            return
        why = "; ".join(map(str, alarms))
        _LOG.warning("drift: %s", why)
        if desk.mode == "enforce":
            desk.act(lambda safety: safety.fall_back(by=BY, why=why))
        desk.act(lambda safety: safety.page("drift", why=why))


def _restored(path: Path, model: str, config: WatchConfig) -> Watch:
    try:
        form: Any = json.loads(path.read_text())
        if form["model"] == model:
            return Watch.from_json(form["watch"], config)
        _LOG.warning("drift: another model; its first events are what is usual from now on")
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, DataError) as problem:
        said = str(problem) if isinstance(problem, PhalanxError) else type(problem).__name__
        _LOG.warning("drift: %s is begun anew (%s)", path, said)
    return Watch(config)
