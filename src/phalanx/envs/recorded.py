"""Recorded events as arrays for the environments: rows with truth, and evaluation lanes.

``stream`` and ``replay`` share this module. All that a row needs to know about other rows (what a quarantine would
silence, what containment would prevent) is computed here once, so that a step looks at one row.
"""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from phalanx.data.encoder import Encoded
from phalanx.envs.response import CONTEXT_COLUMNS
from phalanx.errors import DataError, UsageError
from phalanx.types import Observation, ObservationSpec, Truth

__all__ = [
    "Lanes",
    "RecordedEvents",
    "lanes",
    "preorder",
    "record",
    "recorded_spec",
]

_REMAINING_CAP = 10.0


class RecordedEvents(eqx.Module):
    """Rows in time order, with what their future holds for the credit of a verdict.

    Subjects are numbered in preorder of the process tree: the descendants of ``s`` are ``s <= id < subtree_end[s]``.

    Attributes:
        category: ids per categorical column.
        numeric: scaled numbers.
        subject: acting process.
        parent: its parent as known at this row, -1 unknown.
        host: index of the host.
        time_s: non-decreasing, in s.
        label: 1 malicious, 0 benign, -1 unknown.
        campaign: of malicious rows, dense from 0; -1 elsewhere. A malicious row without a recorded campaign belongs to
            the campaign of its process: each malicious process is then a campaign of its own.
        stage: attack stage, -1 none.
        damage: 1 for a malicious row, else 0.
        process_campaign: campaign of the last malicious row of the same process up to this row, -1 none.
        silence_loss: benign rows of the same process within the quarantine's time to live after this row.
        remaining_damage: for rows of a process that works for a campaign, ``10 (1 - (10/11)^m)`` with m later malicious
            rows of the campaign: their damage discounted by 10/11 per malicious row, at most 10 in all.
        benign_before: number of benign rows before each row; one longer than the rows.
        subtree_end: per subject, one past the last of its descendants.
        n_campaigns: number of campaigns.
        has_processes: some process has more than one row.
    """

    category: Int[Array, "row column"]
    numeric: Float[Array, "row feature"]
    subject: Int[Array, " row"]
    parent: Int[Array, " row"]
    host: Int[Array, " row"]
    time_s: Float[Array, " row"]
    label: Int[Array, " row"]
    campaign: Int[Array, " row"]
    stage: Int[Array, " row"]
    damage: Float[Array, " row"]
    process_campaign: Int[Array, " row"]
    silence_loss: Float[Array, " row"]
    remaining_damage: Float[Array, " row"]
    benign_before: Int[Array, " row_and_end"]
    subtree_end: Int[Array, " subject"]
    n_campaigns: int = eqx.field(static=True)
    has_processes: bool = eqx.field(static=True)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self.subject.shape[0]

    def observe(
        self,
        row: Int[Array, ""],
        entity: Int[Array, ""],
        source: Int[Array, ""],
        extra: Float[Array, " extra"],
    ) -> Observation:
        """The row as the members see it, with ``extra`` numbers after its own."""
        numeric = jnp.concatenate([self.numeric[row], extra])
        return Observation(category=self.category[row], numeric=numeric, entity=entity, source=source)

    def truth(self, row: Int[Array, ""]) -> Truth:
        """What only the evaluator knows of the row."""
        return Truth(
            label=self.label[row],
            campaign=self.campaign[row],
            stage=self.stage[row],
            cause=jnp.int32(-1),
            bait=jnp.int32(0),
        )


def record(
    encoded: Encoded, rows: Int[np.ndarray, " chosen"] | None = None, *, quarantine_ttl_s: float = 600.0
) -> RecordedEvents:
    """Prepares rows of an encoded table for the environments.

    Args:
        encoded: arrays of N rows.
        rows: increasing indices of the rows to keep; all by default.
        quarantine_ttl_s: horizon of ``silence_loss``, in s.

    Raises:
        DataError: no row, or time that runs backwards.
    """
    chosen = np.arange(len(encoded.subject)) if rows is None else np.asarray(rows)
    if chosen.size == 0:
        raise DataError(
            "0 rows chosen for an environment; expected at least 1. Choose another split or more data"
        )
    time_s = np.asarray(encoded.time_s, np.float32)[chosen]
    if (np.diff(time_s) < 0).any():
        at = int(np.argmax(np.diff(time_s) < 0)) + 1
        raise DataError(
            f"time_s runs backwards at chosen row {at} ({time_s[at - 1]} to {time_s[at]}); "
            "expected non-decreasing times. Sort the rows by time"
        )
    order, end = preorder(np.asarray(encoded.subject), np.asarray(encoded.parent))
    subject = order[np.asarray(encoded.subject)[chosen]]
    raw_parent = np.asarray(encoded.parent)[chosen]
    parent = np.where(raw_parent >= 0, order[np.maximum(raw_parent, 0)], -1)
    label = np.asarray(encoded.label)[chosen].astype(np.int32)
    campaign = _campaigns(label, np.asarray(encoded.campaign)[chosen], subject)
    process_campaign = _process_campaign(subject, campaign)
    benign_before = np.concatenate([[0], np.cumsum(label == 0)])
    return RecordedEvents(
        category=jnp.asarray(np.asarray(encoded.category)[chosen], jnp.int32),
        numeric=jnp.asarray(np.asarray(encoded.numeric)[chosen], jnp.float32),
        subject=jnp.asarray(subject, jnp.int32),
        parent=jnp.asarray(parent, jnp.int32),
        host=jnp.asarray(np.asarray(encoded.host)[chosen], jnp.int32),
        time_s=jnp.asarray(time_s),
        label=jnp.asarray(label),
        campaign=jnp.asarray(campaign, jnp.int32),
        stage=jnp.asarray(np.asarray(encoded.stage)[chosen], jnp.int32),
        damage=jnp.asarray(label == 1, jnp.float32),
        process_campaign=jnp.asarray(process_campaign, jnp.int32),
        silence_loss=jnp.asarray(_silence_loss(subject, time_s, label == 0, quarantine_ttl_s), jnp.float32),
        remaining_damage=jnp.asarray(_remaining_damage(campaign, process_campaign), jnp.float32),
        benign_before=jnp.asarray(benign_before, jnp.int32),
        subtree_end=jnp.asarray(end, jnp.int32),
        n_campaigns=int(campaign.max(initial=-1)) + 1,
        has_processes=len(np.unique(subject)) < len(subject),
    )


def recorded_spec(events: RecordedEvents, spec: ObservationSpec, n_entities: int) -> ObservationSpec:
    """The columns of recorded rows followed by the response's own; one memory slot where no process has two rows."""
    return dataclasses.replace(
        spec,
        numeric=spec.numeric + CONTEXT_COLUMNS,
        n_entities=n_entities if events.has_processes else 1,
    )


def preorder(
    subject: Int[np.ndarray, " row"], parent: Int[np.ndarray, " row"]
) -> tuple[Int[np.ndarray, " subject"], Int[np.ndarray, " subject"]]:
    """Numbers the processes so that every subtree is a range of numbers.

    A process has the first known parent of its rows. Where recorded parents form a circle (a reused id), one process of
    the circle is taken as its root.

    Returns:
        The number of each subject, and per *number* one past the last of its descendants.

    Example:
        >>> order, end = preorder(np.array([0, 1, 2]), np.array([-1, 0, -1]))
        >>> order.tolist(), end.tolist()
        ([0, 1, 2], [2, 2, 3])
    """
    n_subjects = int(max(subject.max(initial=-1), parent.max(initial=-1))) + 1
    parent_of = np.full(n_subjects, -1, np.int64)
    known = np.flatnonzero((parent >= 0) & (parent != subject))[::-1]
    parent_of[subject[known]] = parent[known]
    order = np.full(n_subjects, -1, np.int64)
    end = np.zeros(n_subjects, np.int64)
    children: dict[int, list[int]] = {}
    for child in np.flatnonzero(parent_of >= 0).tolist():
        children.setdefault(int(parent_of[child]), []).append(child)
    number = 0
    for root in [*np.flatnonzero(parent_of < 0).tolist(), *np.flatnonzero(parent_of >= 0).tolist()]:
        stack = [(root, False)]
        while stack:
            node, left = stack.pop()
            if left:
                end[order[node]] = number
            elif order[node] < 0:
                order[node] = number
                number += 1
                stack.append((node, True))
                stack.extend((child, False) for child in reversed(children.get(node, [])))
    return order, end


def _campaigns(
    label: Int[np.ndarray, " row"], campaign: Int[np.ndarray, " row"], subject: Int[np.ndarray, " row"]
) -> Int[np.ndarray, " row"]:
    """Dense campaigns of malicious rows; a row without one belongs to its process's own."""
    own = campaign.max(initial=-1).astype(np.int64) + 1 + subject
    raw = np.where(campaign >= 0, campaign, own)
    dense = np.full(len(label), -1, np.int64)
    malicious = label == 1
    dense[malicious] = np.unique(raw[malicious], return_inverse=True)[1]
    return dense


def _process_campaign(
    subject: Int[np.ndarray, " row"], campaign: Int[np.ndarray, " row"]
) -> Int[np.ndarray, " row"]:
    """The campaign of the last malicious row of the same process, this row included."""
    by_subject = np.argsort(subject, kind="stable")
    ordered = subject[by_subject]
    place = np.arange(len(subject))
    last = np.maximum.accumulate(np.where(campaign[by_subject] >= 0, place, -1))
    first = np.searchsorted(ordered, ordered, side="left")
    held = np.where(last >= first, campaign[by_subject][np.maximum(last, 0)], -1)
    result = np.empty(len(subject), np.int64)
    result[by_subject] = held
    return result


def _silence_loss(
    subject: Int[np.ndarray, " row"],
    time_s: Float[np.ndarray, " row"],
    benign: Bool[np.ndarray, " row"],
    ttl_s: float,
) -> Int[np.ndarray, " row"]:
    """Benign rows of the same process after each row and before its time plus ``ttl_s``."""
    by_subject = np.argsort(subject, kind="stable")
    seconds = time_s.astype(np.float64) - float(time_s[0])
    stride = seconds[-1] + ttl_s + 1.0
    place = subject[by_subject] * stride + seconds[by_subject]
    until = np.searchsorted(place, place + ttl_s, side="left")
    counted = np.concatenate([[0], np.cumsum(benign[by_subject])])
    result = np.empty(len(subject), np.int64)
    result[by_subject] = np.maximum(counted[until] - counted[1:], 0)
    return result


def _remaining_damage(
    campaign: Int[np.ndarray, " row"], process_campaign: Int[np.ndarray, " row"]
) -> Float[np.ndarray, " row"]:
    """Discounted damage of the later malicious rows of the process's campaign."""
    n_rows = len(campaign)
    malicious = np.flatnonzero(campaign >= 0)
    keys = np.sort(campaign[malicious] * n_rows + malicious)
    after = np.searchsorted(keys, process_campaign * n_rows + np.arange(n_rows), side="right")
    end = np.searchsorted(keys, (process_campaign + 1) * n_rows, side="left")
    later = np.where(process_campaign >= 0, end - after, 0)
    decay = _REMAINING_CAP / (_REMAINING_CAP + 1.0)
    return _REMAINING_CAP * (1.0 - decay**later)


class Lanes(eqx.Module):
    """Contiguous parts of the rows, evaluated side by side; together they score each row exactly once.

    Attributes:
        start: first row shown, before ``first`` where the lane warms up.
        first: first row scored.
        stop: one past the last row.
    """

    start: Int[Array, "*lane"]
    first: Int[Array, "*lane"]
    stop: Int[Array, "*lane"]


def lanes(n_rows: int, n_lanes: int, warmup: int = 0) -> Lanes:
    """Cuts rows into lanes of equal length (to within one row).

    Args:
        n_rows: rows to cover.
        n_lanes: lanes, at most ``n_rows``.
        warmup: rows shown before the scored ones so that memory is not blank; fewer at the table's start.

    Raises:
        UsageError: lanes or warm-up out of range.

    Example:
        >>> cut = lanes(10, 2, warmup=3)
        >>> cut.start.tolist(), cut.first.tolist(), cut.stop.tolist()
        ([0, 2], [0, 5], [5, 10])
    """
    if not 1 <= n_lanes <= n_rows:
        raise UsageError(f"n_lanes={n_lanes} for {n_rows} rows; expected 1 to {n_rows}. Use fewer lanes")
    if warmup < 0:
        raise UsageError(f"warmup={warmup}; expected 0 or more rows")
    edges = np.arange(n_lanes + 1) * n_rows // n_lanes
    first = edges[:-1]
    return Lanes(
        start=jnp.asarray(np.maximum(first - warmup, 0), jnp.int32),
        first=jnp.asarray(first, jnp.int32),
        stop=jnp.asarray(edges[1:], jnp.int32),
    )
