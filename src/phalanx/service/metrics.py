"""What the service measures of itself, in Prometheus' text form; every label is from a closed list.

Counts that live elsewhere (admission's, safety's, the engine's) are read when somebody asks, not kept twice.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from phalanx.errors import ExtraMissingError
from phalanx.service.admission import Reason
from phalanx.service.desk import Answer
from phalanx.service.safety_rules import Rule
from phalanx.service.safety_state import Effect
from phalanx.service.status import Status
from phalanx.verdicts import Verdict

try:
    from prometheus_client import CollectorRegistry, Histogram, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
except ImportError:
    raise ExtraMissingError("prometheus-client", "serve", "measuring the service") from None

__all__ = ["CONTENT_TYPE", "EVENT_OUTCOMES", "HTTP_REFUSALS", "Metrics", "Source"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

EVENT_OUTCOMES = ("decided", "repeated", "refused", "dropped", "failed")
"""Of events that came: decided; decided before; not admitted; no room (the client was told); taken and not decided."""

HTTP_REFUSALS = (
    "unauthorized",
    "forbidden",
    "too-large",
    "too-slow",
    "unsupported-media-type",
    "bad-header",
    "bad-request",
    "not-found",
    "not-allowed",
    "conflict",
    "disconnected",
    "queue-full",
    "ledger-full",
    "stopping",
    "failed",
    "unavailable",
    "internal",
)
"""Codes of errors that requests get as a whole."""

_ADMISSION = ("cut", "redacted", "escaped", "dropped")
_DECIDE_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
_HTTP_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Source:
    """Where the numbers are that others keep; the defaults are those of a service without that part.

    Attributes:
        status: of the desk.
        admission: counts of ``Admission``.
        depth, room: events that wait, and how many may.
        dropped: events that found no room.
        watch: measures of drift and calibration: name -> (value, limit, whether it is beyond).
        backlog: messages that wait to be sent.
        index_lag: entries of the ledger that the index for queries does not have yet.
        voting: members of whom votes came lately, where nodes decide.
    """

    def __init__(
        self,
        status: Callable[[], Status] = Status,
        *,
        admission: Mapping[str, int] | None = None,
        depth: Callable[[], int] = lambda: 0,
        room: int = 0,
        dropped: Callable[[], int] = lambda: 0,
        watch: Callable[[], Mapping[str, tuple[float, float, bool]]] = dict,
        backlog: Callable[[], float] = lambda: 0,
        index_lag: Callable[[], int] = lambda: 0,
        voting: Callable[[], int] | None = None,
    ) -> None:
        self.status, self.depth, self.room, self.dropped = status, depth, room, dropped
        self.admission: Mapping[str, int] = admission if admission is not None else {}
        self.watch, self.backlog, self.index_lag, self.voting = watch, backlog, index_lag, voting


class Metrics:
    """Counts and times of one service, in a registry of its own.

    Attributes:
        source: numbers that others keep; set it before the first ``text``.

    Example:
        >>> metrics = Metrics()
        >>> metrics.refuse("unauthorized")
        >>> 'phalanx_requests_refused_total{reason="unauthorized"} 1.0' in metrics.text().decode()
        True
    """

    def __init__(self) -> None:
        self.source = Source()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        self._refused: Counter[str] = Counter()
        self._events: Counter[str] = Counter(
            dict.fromkeys(EVENT_OUTCOMES, 0)
        )  # its keys never change: threads read
        self._verdicts: Counter[str] = Counter()
        self._pages = self._recalled = 0
        self._decide = Histogram(
            "phalanx_decide_seconds",
            "Time of one batch at the desk",
            buckets=_DECIDE_S,
            registry=self._registry,
        )
        self._batch = Histogram(
            "phalanx_batch_events", "Events of one batch", buckets=_BATCH, registry=self._registry
        )
        self._http = Histogram(
            "phalanx_http_seconds",
            "Time of one request, its body and its answer included",
            ["endpoint", "status"],
            buckets=_HTTP_S,
            registry=self._registry,
        )

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)

    def refuse(self, code: str) -> None:
        """A request was refused as a whole."""
        self._refused[code if code in HTTP_REFUSALS else "bad-request"] += 1

    def request(self, endpoint: str, status: int, took_s: float) -> None:
        """A request was answered.

        Args:
            endpoint: its name, or ``other``.
            status: of HTTP, 0 where there was no answer.
            took_s: in s.
        """
        self._http.labels(endpoint, f"{status // 100}xx" if status else "none").observe(took_s)

    def events(self, outcome: str, count: int = 1) -> None:
        """Events came to an end of ``EVENT_OUTCOMES``."""
        self._events[outcome] += count

    def recalled(self, count: int) -> None:
        """Events were repeated that had been decided long ago; told by another thread than ``batch``."""
        self._recalled += count

    def batch(self, answers: Sequence[Answer], took_s: float) -> None:
        """A batch was decided."""
        self._decide.observe(took_s)
        self._batch.observe(len(answers))
        for each in answers:
            self._events["repeated" if each.repeated else "decided"] += 1
            if not each.repeated:
                self._verdicts[each.decision.verdict.name.lower()] += 1

    def page(self, count: int = 1) -> None:
        """An operator was called."""
        self._pages += count

    def collect(self) -> Iterator[Metric]:
        """What is read when somebody asks (the registry calls this)."""
        source = self.source
        status = source.status()
        events = {**self._events, "dropped": source.dropped()}
        events["repeated"] += self._recalled
        events["refused"] = sum(source.admission.get(reason.value, 0) for reason in Reason)
        counts = status.counts
        yield _counter("events", "Events by what became of them", "outcome", events, EVENT_OUTCOMES)
        yield _counter(
            "verdicts", "Decisions by verdict", "verdict", self._verdicts, [v.name.lower() for v in Verdict]
        )
        yield _counter(
            "events_refused", "Events not admitted", "reason", source.admission, [r.value for r in Reason]
        )
        yield _counter("admission", "What admission did to events", "what", source.admission, _ADMISSION)
        yield _counter("requests_refused", "Requests refused", "reason", self._refused, HTTP_REFUSALS)
        yield _counter(
            "effects", "Decisions by their effect", "effect", _under("effect/", counts), list(Effect)
        )
        yield _counter("rules", "How often a rule spoke", "rule", _under("rule/", counts), list(Rule))
        yield _counter("pages", "How often an operator was called", "", {"": self._pages}, [""])
        engine = status.counters
        for name, what in (
            ("without_memory", "Events of processes that found no place"),
            ("from_the_past", "Events earlier than the latest seen"),
        ):
            yield _counter(f"events_{name}", what, "", {"": engine.get(name, 0)}, [""])
        restrictions = {"active": status.active, "pending": status.pending, "would": status.would}
        processes = {"remembered": status.remembered, "pinned": status.pinned}
        watch = source.watch()
        yield _gauge("restrictions", "Restrictions that are open", "state", restrictions)
        yield _gauge("processes", "Processes that have a place", "state", processes)
        yield _gauge("queue_events", "Events that wait", "", {"": source.depth()})
        yield _gauge("queue_room", "Events that may wait", "", {"": source.room})
        yield _gauge("ledger_height", "Last entry of the ledger", "", {"": status.height})
        yield _gauge("ledger_synced", "Last entry known to be on the disk", "", {"": status.synced})
        yield _gauge("ledger_torn", "Torn entries kept aside", "", {"": status.torn})
        yield _gauge("ledger_broken", "Whether the ledger takes nothing more", "", {"": bool(status.broken)})
        modes = {mode: status.mode == mode for mode in ("shadow", "enforce")}
        yield _gauge("mode", "What may take effect", "mode", modes)
        yield _gauge("killed", "Whether the kill switch is pulled", "", {"": status.killed})
        yield _gauge(
            "fallback", "Whether the service fell back into shadow mode", "", {"": bool(status.fallback)}
        )
        yield _gauge(
            "watch", "Drift and calibration", "measure", {name: each[0] for name, each in watch.items()}
        )
        yield _gauge(
            "watch_limit", "Their limits", "measure", {name: each[1] for name, each in watch.items()}
        )
        yield _gauge(
            "watch_beyond", "Beyond them", "measure", {name: each[2] for name, each in watch.items()}
        )
        yield _gauge("outbox_backlog", "Messages that wait to be sent", "", {"": source.backlog()})
        yield _gauge("index_lag", "Entries that the index for queries lacks", "", {"": source.index_lag()})
        if source.voting is not None:
            yield _gauge("members_voting", "Members of whom votes came lately", "", {"": source.voting()})


def _under(prefix: str, counts: Mapping[str, int]) -> dict[str, int]:
    return {name.removeprefix(prefix): count for name, count in counts.items() if name.startswith(prefix)}


def _counter(name: str, about: str, label: str, values: Mapping[str, float], known: Sequence[str]) -> Metric:
    """A counter with a value for every label of the list, and no other."""
    family = CounterMetricFamily(f"phalanx_{name}", about, labels=[label] if label else [])
    for value in known:
        family.add_metric([str(value)] if label else [], float(values.get(value, 0)))
    return family


def _gauge(name: str, about: str, label: str, values: Mapping[str, Any]) -> Metric:
    family = GaugeMetricFamily(f"phalanx_{name}", about, labels=[label] if label else [])
    for value, number in values.items():
        family.add_metric([value] if label else [], float(number))
    return family
