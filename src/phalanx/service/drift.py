"""Whether what comes is still what members know, and whether their scores still mean what they say.

The first events are the reference. Of every window after it four distances are measured: of the scores' distributions,
of the share of categories that training never saw, of the rate of alerts, of how often members disagree. Where truth is
given later, so is the error of the scores. What stays beyond its limit raises an alarm, once, until it comes back.

A pure state machine: no clock, no file, no randomness; ``to_json`` and ``from_json`` carry it over a restart.

Sources: Kolmogorov's distance of two samples (Smirnov 1948); effect size h = 2 asin(sqrt(p)) - 2 asin(sqrt(q)) of two
rates (Cohen, Statistical Power Analysis, 2nd ed., 6.2: .2 small, .5 medium, .8 large); Brier 1950; expected calibration
error (Naeini et al., AAAI 2015), 10 bins of equal width.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from phalanx.errors import DataError, UsageError, unknown_name
from phalanx.files import read_structured

__all__ = [
    "MEASURES",
    "Alarm",
    "Batch",
    "Watch",
    "WatchConfig",
    "calibration_error",
    "effect_size",
    "ks_distance",
]

MEASURES = ("score", "unseen", "alerts", "dissent", "brier", "calibration")
"""Names of what is measured; a closed list."""

_OVER_TIME = MEASURES[:4]
_BINS = 10
_VERSION = 1


@dataclass(frozen=True)
class WatchConfig:
    """Limits, and how much is looked at. A limit of 0 turns its measure off.

    Attributes:
        reference: events at the beginning that are what is usual.
        window: events of each window after them.
        persist: windows in a row that must be beyond a limit.
        score: Kolmogorov's distance of the scores, in [0, 1].
        unseen: effect size of the share of categories that training never saw, in [0, pi].
        alerts: of the rate of alerts.
        dissent: of how often a member's vote is not the verdict.
        labels: of the latest so many events whose truth is known the errors are measured.
        fewest_labels: before which they are not.
        brier: mean squared error of the score, in [0, 1]; to say one half always has .25.
        calibration: expected calibration error, in [0, 1].
        remembered: scores of the latest so many events, for labels to come.

    Raises:
        UsageError: a value is outside its range.
    """

    reference: int = 5000
    window: int = 5000
    persist: int = 2
    score: float = 0.25
    unseen: float = 0.5
    alerts: float = 0.5
    dissent: float = 0.5
    labels: int = 500
    fewest_labels: int = 100
    brier: float = 0.25
    calibration: float = 0.25
    remembered: int = 50_000

    def __post_init__(self) -> None:
        for name in ("reference", "window", "persist", "labels", "fewest_labels", "remembered"):
            if not 1 <= getattr(self, name) <= 10_000_000:
                raise UsageError(f"{name} = {getattr(self, name)}; expected 1 to 10,000,000")
        for name in MEASURES:
            if not 0.0 <= getattr(self, name) <= math.pi:
                raise UsageError(f"{name} = {getattr(self, name)}; expected 0 (off) to pi")
        if self.fewest_labels > self.labels:
            raise UsageError(f"fewest_labels = {self.fewest_labels} is more than labels = {self.labels}")

    @classmethod
    def read(cls, path: Path) -> "WatchConfig":
        """Reads limits from a TOML file.

        Raises:
            DataError: it cannot be read.
            UsageError: a key is unknown or its value is not what it should be.
        """
        given = read_structured(path, "file of limits")
        known = {field.name: field.default for field in fields(cls)}
        if not isinstance(given, dict):
            raise UsageError(f"{path}: expected a table of keys; see docs/serving.md")
        values: dict[str, Any] = {}
        for name, value in given.items():
            if name not in known:
                raise unknown_name(f"key in {path}:", name, sorted(known))
            wanted = (int, float) if isinstance(known[name], float) else (int,)
            if isinstance(value, bool) or not isinstance(value, wanted):
                raise UsageError(
                    f"{path}: {name} = {value!r}; expected a {'number' if len(wanted) > 1 else 'whole number'}"
                )
            values[name] = type(known[name])(value)
        try:
            return cls(**values)
        except UsageError as problem:
            raise UsageError(f"{path}: {problem}") from None


@dataclass(frozen=True)
class Batch:
    """What is looked at of decided events, one value an event.

    Attributes:
        ids: of the events.
        score: in [0, 1].
        alerted: whether the verdict is alert or more.
        dissent: whether a member's vote is not the verdict.
        unseen: categories that training never saw.
        cells: categories that there were.
    """

    ids: Sequence[str]
    score: Float[np.ndarray, " event"]
    alerted: Bool[np.ndarray, " event"]
    dissent: Bool[np.ndarray, " event"]
    unseen: Int[np.ndarray, " event"]
    cells: Int[np.ndarray, " event"]


@dataclass(frozen=True)
class Alarm:
    """A measure went beyond its limit.

    Attributes:
        measure: of ``MEASURES``.
        value, limit: of it.
    """

    measure: str
    value: float
    limit: float

    def __str__(self) -> str:
        return f"{_ABOUT[self.measure]}: {self.value:.3f}, limit {self.limit:g}"


_ABOUT = {
    "score": "the scores' distribution is another than at first",
    "unseen": "another share of values is new to the members",
    "alerts": "the rate of alerts is another than at first",
    "dissent": "members disagree as often as they did not at first",
    "brier": "the scores' squared error against the truth",
    "calibration": "the scores do not mean what they say",
}


@dataclass
class _Part:
    """Events of the reference, or of the window that is under way."""

    scores: list[np.ndarray]
    events: int = 0
    alerted: int = 0
    dissent: int = 0
    unseen: int = 0
    cells: int = 0

    def add(self, batch: Batch, begin: int, end: int) -> None:
        self.scores.append(np.asarray(batch.score[begin:end], np.float64))
        self.events += end - begin
        self.alerted += int(batch.alerted[begin:end].sum())
        self.dissent += int(batch.dissent[begin:end].sum())
        self.unseen += int(batch.unseen[begin:end].sum())
        self.cells += int(batch.cells[begin:end].sum())

    @property
    def rates(self) -> dict[str, float]:
        return {
            "unseen": self.unseen / max(1, self.cells),
            "alerts": self.alerted / max(1, self.events),
            "dissent": self.dissent / max(1, self.events),
        }

    def to_json(self) -> dict[str, Any]:
        """Its form, scores as one list."""
        whole = np.concatenate(self.scores).tolist() if self.scores else []
        counts = (self.events, self.alerted, self.dissent, self.unseen, self.cells)
        return {"scores": whole, "counts": list(counts)}

    @classmethod
    def from_json(cls, form: Mapping[str, Any]) -> "_Part":
        """The part of that form."""
        return cls([np.asarray(form["scores"], np.float64)], *map(int, form["counts"]))


class Watch:
    """Looks at decisions as they come.

    Args:
        config: limits.

    Attributes:
        config: as given.
        values: measure -> (latest value, limit, whether it is beyond); a new mapping after every change.

    Example:
        >>> watch = Watch(WatchConfig(reference=100, window=100, persist=1))
        >>> def batch(score, n=100):
        ...     no = np.zeros(n, bool)
        ...     return Batch(["e"] * n, np.full(n, score), no, no, np.zeros(n, int), np.ones(n, int))
        >>> watch.observe(batch(0.1)), watch.observe(batch(0.1)), [alarm.measure for alarm in watch.observe(batch(0.9))]
        ([], [], ['score'])
    """

    def __init__(self, config: WatchConfig = WatchConfig()) -> None:
        self.config = config
        self.values: Mapping[str, tuple[float, float, bool]] = {}
        self._reference, self._window = _Part([]), _Part([])
        self._sorted: np.ndarray | None = None
        self._beyond: dict[str, int] = {}
        self._raised: set[str] = set()
        self._scores: OrderedDict[str, float] = OrderedDict()
        self._labels: OrderedDict[str, tuple[float, bool]] = OrderedDict()

    @property
    def raised(self) -> tuple[str, ...]:
        """Measures whose alarm was raised and that have not come back, in the order of ``MEASURES``."""
        return tuple(name for name in MEASURES if name in self._raised)

    @property
    def learning(self) -> bool:
        """Whether the reference is not complete yet."""
        return self._reference.events < self.config.reference

    def observe(self, batch: Batch) -> list[Alarm]:
        """Takes in decisions, in their order.

        Returns:
            Alarms that they raise.
        """
        for name, score in zip(batch.ids, batch.score, strict=True):
            self._scores[name] = float(score)
        while len(self._scores) > self.config.remembered:
            self._scores.popitem(last=False)
        alarms: list[Alarm] = []
        at = 0
        while at < len(batch.ids):
            part, size = (
                (self._reference, self.config.reference)
                if self.learning
                else (self._window, self.config.window)
            )
            end = min(len(batch.ids), at + size - part.events)
            part.add(batch, at, end)
            at = end
            if part is self._window and part.events == size:
                alarms += self._judge(part)
                self._window = _Part([])
        return alarms

    def label(self, labels: Sequence[tuple[str, bool]]) -> tuple[int, list[Alarm]]:
        """Takes in what was true of events: whether they were malicious.

        Returns:
            How many of the events are remembered, and alarms that they raise.
        """
        known = [(name, self._scores[name], truth) for name, truth in labels if name in self._scores]
        for name, score, truth in known:
            self._labels[name] = (score, truth)
            self._labels.move_to_end(name)
        while len(self._labels) > self.config.labels:
            self._labels.popitem(last=False)
        if not known or len(self._labels) < self.config.fewest_labels:
            return len(known), []
        score = np.array([score for score, _ in self._labels.values()])
        truth = np.array([truth for _, truth in self._labels.values()])
        found = {
            "brier": float(np.mean((score - truth) ** 2)),
            "calibration": calibration_error(score, truth),
        }
        return len(known), self._weigh(found, persist=1)

    def renew(self) -> None:
        """What comes from now on is what is usual; alarms are taken back."""
        self._reference, self._window, self._sorted = _Part([]), _Part([]), None
        self._labels.clear()
        self._beyond.clear()
        self._raised.clear()
        self.values = {}

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` goes on from; scores of events that were not labelled are left out."""
        return {
            "version": _VERSION,
            "reference": self._reference.to_json(),
            "window": self._window.to_json(),
            "beyond": self._beyond,
            "raised": list(self.raised),
            "values": {name: list(value) for name, value in self.values.items()},
            "labels": [[name, score, truth] for name, (score, truth) in self._labels.items()],
        }

    @classmethod
    def from_json(cls, form: Any, config: WatchConfig) -> "Watch":
        """Goes on.

        Raises:
            DataError: it is another form.
        """
        watch = cls(config)
        try:
            if form["version"] != _VERSION:
                raise ValueError("version")
            watch._reference, watch._window = (
                _Part.from_json(form["reference"]),
                _Part.from_json(form["window"]),
            )
            watch._beyond = {str(name): int(count) for name, count in form["beyond"].items()}
            watch._raised = set(form["raised"]) & set(MEASURES)
            watch.values = {
                name: (float(value), float(getattr(config, name)), bool(beyond))
                for name, (value, _, beyond) in form["values"].items()
                if name in MEASURES
            }
            for name, score, truth in form["labels"]:
                watch._labels[str(name)] = (float(score), bool(truth))
            if watch._window.events >= config.window or watch._reference.events > config.reference:
                watch._reference, watch._window = _Part([]), _Part([])  # other limits: another reference
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise DataError(
                f"not a state of the watch over drift ({type(problem).__name__}); delete it"
            ) from None
        return watch

    def _judge(self, window: _Part) -> list[Alarm]:
        if self._sorted is None:
            self._sorted = np.sort(np.concatenate(self._reference.scores))
        found = {"score": ks_distance(self._sorted, np.concatenate(window.scores))}
        usual, now = self._reference.rates, window.rates
        found |= {name: effect_size(now[name], usual[name]) for name in usual}
        return self._weigh(found, self.config.persist)

    def _weigh(self, found: Mapping[str, float], persist: int) -> list[Alarm]:
        alarms, values = [], dict(self.values)
        for name, value in found.items():
            limit = float(getattr(self.config, name))
            beyond = bool(limit) and value > limit
            self._beyond[name] = self._beyond.get(name, 0) + 1 if beyond else 0
            values[name] = (value, limit, beyond)
            if not beyond:
                self._raised.discard(name)
            elif self._beyond[name] >= persist and name not in self._raised:
                self._raised.add(name)
                alarms.append(Alarm(name, value, limit))
        self.values = values
        return alarms


def ks_distance(reference: Float[np.ndarray, " reference"], sample: Float[np.ndarray, " sample"]) -> float:
    """The largest difference between the cumulative distributions of two samples, in [0, 1].

    Args:
        reference: ascending.
        sample: in any order.

    Example:
        >>> ks_distance(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 1.0, 1.0, 1.0]))
        0.25
    """
    sample = np.sort(sample)
    at = np.union1d(reference, sample)
    below = [np.searchsorted(each, at, side="right") / len(each) for each in (reference, sample)]
    return float(np.max(np.abs(below[0] - below[1])))


def effect_size(rate: float, usual: float) -> float:
    """Cohen's h of two rates, without its sign, in [0, pi].

    Example:
        >>> round(effect_size(0.12, 0.01), 2), effect_size(0.3, 0.3)
        (0.51, 0.0)
    """
    return abs(2 * math.asin(math.sqrt(rate)) - 2 * math.asin(math.sqrt(usual)))


def calibration_error(score: Float[np.ndarray, " event"], truth: Bool[np.ndarray, " event"]) -> float:
    """Expected calibration error: how far in each bin of scores their mean lies from the share that was malicious.

    Args:
        score: in [0, 1].
        truth: whether it was.

    Example:
        >>> calibration_error(np.array([0.0, 0.0, 0.9, 0.9]), np.array([False, False, True, False]))
        0.2
    """
    bins = np.minimum((score * _BINS).astype(int), _BINS - 1)
    count = np.bincount(bins, minlength=_BINS)
    gap = np.abs(np.bincount(bins, score, _BINS) - np.bincount(bins, truth.astype(float), _BINS))
    return float(gap.sum() / count.sum())
