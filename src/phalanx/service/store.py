"""The store: decisions and restrictions where they can be looked up, in SQLite or PostgreSQL.

An index, brought up from the ledger: a batch goes in with its height, once, however often it is given. All values are
bound parameters.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from phalanx.errors import DataError, ExtraMissingError, UsageError
from phalanx.service.clock import SECOND_NS
from phalanx.service.records import LiveDecision, LiveEvent
from phalanx.service.restrictions import Restriction
from phalanx.service.safety import Outcome
from phalanx.service.safety_state import Effect
from phalanx.service.store_tables import Tables, open_database, plain, tables
from phalanx.verdicts import Verdict

try:
    import msgspec
except ImportError:
    raise ExtraMissingError("msgspec", "serve", "storing decisions") from None

__all__ = ["Decided", "Found", "Page", "Store"]

_PLACES = 2**20  # of one batch, at most
_MOST = 1_000
_DELETED_AT_ONCE = 10_000
_NAMED_AT_ONCE = 500  # older SQLite takes 999 parameters
_HOUR_NS = 3600 * SECOND_NS
_DAY_NS = 24 * _HOUR_NS
_HOUR = "stored by hour "
_in_ascii = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True)
class Decided:
    """A decided batch.

    Attributes:
        height: of the ledger's entry that holds it.
        events: that were decided.
        decisions: one an event.
        outcomes: what came of each, as far as it is known.
    """

    height: int
    events: Sequence[LiveEvent]
    decisions: Sequence[LiveDecision]
    outcomes: Sequence[Outcome | None] | None = None

    def rows(self) -> list[dict[str, Any]]:
        """Rows of the table of decisions.

        Raises:
            DataError: a batch too long or too high for their keys.
        """
        if not 0 < self.height < 2**42 or len(self.events) > _PLACES:
            raise DataError(
                f"a batch of {len(self.events)} events at height {self.height} has no place in the store"
            )
        known = self.outcomes or [None] * len(self.events)
        return [
            _row(self.height * _PLACES + place, event, decision, outcome)
            for place, (event, decision, outcome) in enumerate(
                zip(self.events, self.decisions, known, strict=True)
            )
        ]


@dataclass(frozen=True)
class Found:
    """A decision as it was stored.

    Attributes:
        height: of the ledger's entry that holds it.
        event: what was decided.
        decision: the committee's.
        effect: what came of it; empty where that is not known any more.
        would: what would have, were the service enforcing.
        reasons: rules that spoke.
        restriction: id of the restriction, empty where there is none.
        state: where that is now (``restrictions.State``); empty where that is not known: of shadow mode, or forgotten,
            or not looked up (``by_ids``).
    """

    height: int
    event: LiveEvent
    decision: LiveDecision
    effect: str
    would: str
    reasons: tuple[str, ...]
    restriction: str
    state: str = ""


@dataclass(frozen=True)
class Page:
    """Some of what was found, the latest first.

    Attributes:
        items: decisions.
        after: give it to the next query for those that follow; empty where there are none.
    """

    items: tuple[Found, ...]
    after: str


class Store:
    """Decisions and restrictions. Its methods may be called from any thread.

    Args:
        engine: of ``store_tables.open_database``; ``Store.open`` makes it.

    Example:
        >>> import tempfile
        >>> store = Store.open(tempfile.mkdtemp() + "/decisions.sqlite")
        >>> event = LiveEvent("e1", 5, "web-1", "p7", "EXECUTE")
        >>> decision = LiveDecision("e1", 5, "web-1", "p7", Verdict.ALERT, (Verdict.ALERT,), True, 0.9, False, {},
        ...                         ("e1",), "m")
        >>> store.insert(3, [event], [decision]), store.insert(3, [event], [decision]), store.last_height()
        (True, False, 3)
        >>> store.find(host="web-1", verdict=Verdict.ALERT).items[0].decision == decision
        True
        >>> store.close()
    """

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.tables: Tables = tables()

    @staticmethod
    def open(where: str) -> "Store":
        """Opens a store, or begins one.

        Args:
            where: path of an SQLite file, or the URL of a PostgreSQL database.

        Raises:
            UsageError: it is neither, or a package is not installed.
            DataError: it cannot be opened, or was written by a newer version.
        """
        return Store(open_database(where))

    def close(self) -> None:
        """Lets go of the database."""
        self.engine.dispose()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def writing(self) -> Iterator[Any]:
        """A transaction that writes: all that is done with the connection, or nothing.

        Raises:
            DataError: the database failed.
        """
        with (
            self._failing("write to"),
            self.engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Any]:
        """A transaction that reads.

        Raises:
            DataError: the database failed.
        """
        with self._failing("read"), self.engine.connect() as connection, connection.begin():
            yield connection

    def last_height(self, name: str = "decisions") -> int:
        """The last height of decisions, or of what is ``sent``; 0 before the first."""
        with self.reading() as connection:
            return height_of(connection, self.tables, name)

    def insert(
        self,
        height: int,
        events: Sequence[LiveEvent],
        decisions: Sequence[LiveDecision],
        outcomes: Sequence[Outcome | None] | None = None,
        *,
        along: Callable[[Any], None] | None = None,
    ) -> bool:
        """Stores a batch, whole or not at all.

        Args:
            height, events, decisions, outcomes: see ``Decided``.
            along: writes further rows in the same transaction.

        Returns:
            Whether it is new: a height that was stored, or lies below one that was, changes nothing.

        Raises:
            DataError: the database failed; nothing was stored.
        """
        return self.insert_many([Decided(height, events, decisions, outcomes)], along=along) == 1

    def insert_many(self, batches: Sequence[Decided], *, along: Callable[[Any], None] | None = None) -> int:
        """Stores batches in one transaction, which costs as much for one as for many.

        Args:
            batches: in ascending order of their heights.
            along: writes further rows in the same transaction, where a batch is new.

        Returns:
            How many were new (see ``insert``).

        Raises:
            DataError: the database failed; nothing was stored.
        """
        rows = [batch.rows() for batch in batches]
        with self.writing() as connection:
            stored = height_of(connection, self.tables, "decisions", held=True)
            new = [place for place, batch in enumerate(batches) if batch.height > stored]
            if not new:
                return 0
            raise_height(connection, self.tables, "decisions", batches[-1].height)
            fresh = [row for place in new for row in rows[place]]
            if fresh:
                connection.execute(self.tables.decisions.insert(), fresh)
            if along is not None:
                along(connection)
        return len(new)

    def by_id(self, event_id: str) -> Found | None:
        """The latest decision on an event of this id; None where there is none."""
        decisions = self.tables.decisions
        query = decisions.select().where(decisions.c.event_id == plain(event_id))
        found = self._page(query, 1).items
        return found[0] if found else None

    def by_ids(self, event_ids: Sequence[str]) -> tuple[Found, ...]:
        """The latest decision on an event of each of these ids, where there is one."""
        columns = self.tables.decisions.c
        query = self.tables.decisions.select().where(
            columns.event_id.in_([plain(each) for each in event_ids])
        )
        with self.reading() as connection:
            rows = connection.execute(query.order_by(columns.key)).all()
        found = {each.event.id: each for each in map(_found, rows)}  # of several the last stays
        return tuple(found[each] for each in event_ids if each in found)

    def find(
        self,
        *,
        host: str | None = None,
        subject: str | None = None,
        since_ns: int | None = None,
        verdict: Verdict = Verdict.ALLOW,
        after: str = "",
        limit: int = 100,
    ) -> Page:
        """Decisions, the latest first.

        Args:
            host: on this host alone.
            subject: of this process alone.
            since_ns: of events from this time on, in ns since 1970.
            verdict: this one and severer ones.
            after: of the page before.
            limit: at most so many, 1 to 1000.

        Raises:
            UsageError: a limit outside its range, or no page's ``after``.
        """
        if not 1 <= limit <= _MOST:
            raise UsageError(f"limit = {limit}; expected 1 to {_MOST}")
        columns = self.tables.decisions.c
        query = self.tables.decisions.select()
        if host is not None:
            query = query.where(columns.host == plain(host))
        if subject is not None:
            query = query.where(columns.subject == plain(subject))
        if since_ns is not None:
            query = query.where(columns.time_ns >= since_ns)
        if verdict is not Verdict.ALLOW:
            query = query.where(columns.verdict > 0, columns.verdict >= int(verdict))
        if after:
            query = query.where(columns.key < _key_of(after))
        return self._page(query, limit)

    def put_restrictions(self, connection: Any, restrictions: Sequence[Restriction]) -> None:
        """Stores restrictions as they now are, in a transaction (``writing``)."""
        table = self.tables.restrictions
        for restriction in restrictions:
            row = {
                "id": restriction.id,
                "host": plain(restriction.target.host),
                "subject": plain(restriction.target.subject),
                "verdict": int(restriction.verdict),
                "state": restriction.state.value,
                "shadow": restriction.shadow,
                "asked_ns": restriction.asked.wall_ns,
                "body": json.dumps(restriction.as_json()),
            }
            updated = connection.execute(table.update().where(table.c.id == restriction.id).values(row))
            if not updated.rowcount:
                connection.execute(table.insert().values(row))

    def restrictions(
        self, *, host: str | None = None, state: str | None = None, limit: int = 100
    ) -> tuple[Restriction, ...]:
        """Restrictions, the latest first."""
        table = self.tables.restrictions
        query = table.select().order_by(table.c.asked_ns.desc(), table.c.id).limit(limit)
        if host is not None:
            query = query.where(table.c.host == plain(host))
        if state is not None:
            query = query.where(table.c.state == state)
        with self.reading() as connection:
            return tuple(Restriction.of(json.loads(row.body)) for row in connection.execute(query))

    def forget(self, days: float, now_ns: int, *, between: Callable[[], None] = lambda: None) -> int:
        """Deletes what is older: decisions by when they were stored, whatever their events' times are, restrictions
        that have ended by when they were asked for, what was sent by when it ended. To be called every hour: it notes
        what had been stored by then.

        Args:
            days: how long decisions are kept; at most two hours longer, and as long as nobody called this besides.
            now_ns: the time, in ns since 1970.
            between: called between the parts in which much is deleted, outside of transactions.

        Returns:
            How many decisions.
        """
        before = now_ns - round(days * _DAY_NS)
        decisions, outbox, restrictions = self.tables.decisions, self.tables.outbox, self.tables.restrictions
        last = self._stored_by(now_ns // _HOUR_NS, before // _HOUR_NS)
        deleted = 0
        while last:  # in parts, so that nobody waits long for the lock
            old = decisions.select().with_only_columns(decisions.c.key)
            old = old.where(decisions.c.key < (last + 1) * _PLACES).limit(_DELETED_AT_ONCE)
            with self.writing() as connection:
                found = connection.execute(decisions.delete().where(decisions.c.key.in_(old)))
            deleted += found.rowcount
            between()
            if found.rowcount < _DELETED_AT_ONCE:
                break
        with self.writing() as connection:
            connection.execute(outbox.delete().where(outbox.c.state != "waiting", outbox.c.ended_ns < before))
            ended = restrictions.c.state.not_in(("pending", "active"))
            connection.execute(restrictions.delete().where(ended, restrictions.c.asked_ns < before))
        return deleted

    def _stored_by(self, hour: int, long_ago: int) -> int:
        """Notes the height that is stored at an hour; the last one that was by an hour long ago, 0 where none was."""
        table = self.tables.heights
        with self.writing() as connection:
            rows = connection.execute(table.select().where(table.c.name.like(f"{_HOUR}%")))
            noted = {int(row.name.removeprefix(_HOUR)): row.value for row in rows}
            if hour not in noted:
                noted[hour] = height_of(connection, self.tables, "decisions")
                connection.execute(table.insert(), [{"name": f"{_HOUR}{hour}", "value": noted[hour]}])
            past = [
                each for each in noted if each < long_ago
            ]  # the whole hour: it was noted in the midst of it
            over = [f"{_HOUR}{each}" for each in past if each < max(past)]
            if over:
                connection.execute(table.delete().where(table.c.name.in_(over)))
        return noted[max(past)] if past else 0

    def _page(self, query: Any, limit: int) -> Page:
        key = self.tables.decisions.c.key
        with self.reading() as connection:
            rows = connection.execute(query.order_by(key.desc()).limit(limit + 1)).all()
            found = [_found(row) for row in rows[:limit]]
            states = self._states(connection, [each.restriction for each in found if each.restriction])
        after = f"{rows[limit - 1].key:x}" if len(rows) > limit else ""
        return Page(tuple(replace(each, state=states.get(each.restriction, "")) for each in found), after)

    def _states(self, connection: Any, names: Sequence[str]) -> dict[str, str]:
        """Where restrictions are now, by id; without those of shadow mode, which are not stored."""
        table, wanted, found = self.tables.restrictions, sorted(set(names)), {}
        for first in range(0, len(wanted), _NAMED_AT_ONCE):
            some = table.c.id.in_(wanted[first : first + _NAMED_AT_ONCE])
            query = table.select().with_only_columns(table.c.id, table.c.state).where(some)
            found |= {row.id: row.state for row in connection.execute(query)}
        return found

    @contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except SQLAlchemyError as problem:
            shown = self.engine.url.render_as_string(hide_password=True)
            reason = str(getattr(problem, "orig", problem)).strip().splitlines()
            raise DataError(
                f"cannot {what} the store {shown} ({reason[0] if reason else type(problem).__name__}). "
                "Check that the disk has room, or that the database runs"
            ) from None


def height_of(connection: Any, schema: Tables, name: str, *, held: bool = False) -> int:
    """A height that the store keeps, within a transaction; ``held``: nobody else changes it until that ends."""
    table = schema.heights
    query = table.select().with_only_columns(table.c.value).where(table.c.name == name)
    return connection.scalar(query.with_for_update() if held else query) or 0


def raise_height(connection: Any, schema: Tables, name: str, height: int) -> bool:
    """Raises a height that the store keeps; whether it lay below. Holds off others until the transaction ends."""
    table = schema.heights
    raised = table.update().where(table.c.name == name, table.c.value < height).values(value=height)
    return connection.execute(raised).rowcount == 1


def _key_of(after: str) -> int:
    try:
        key = int(after, 16)
    except ValueError:
        key = -1
    if not 0 <= key < 2**63:
        raise UsageError(f"after = {after[:40]!r}; give what the page before said")
    return key


def _row(key: int, event: LiveEvent, decision: LiveDecision, outcome: Outcome | None) -> dict[str, Any]:
    form = {
        "votes": [None if vote is None else int(vote) for vote in decision.votes],
        "quorum": decision.quorum,
        "score": decision.score,
        "shielded": decision.shielded,
        "robustness": {
            name: value if math.isfinite(value) else str(value) for name, value in decision.robustness.items()
        },
        "evidence": list(decision.evidence),
        "model": decision.model,
        "tolerates": decision.tolerates,
    }
    told = {"id": event.id, "kind": event.kind, "parent": event.parent, "attributes": dict(event.attributes)}
    told |= {"host": event.host, "subject": event.subject}
    came = {}
    if outcome is not None and (outcome.reasons or outcome.would is not Effect.NONE):
        came = {
            "would": outcome.would.value,
            "reasons": list(outcome.reasons),
            "restriction": outcome.restriction,
        }
    return {
        "key": key,
        "event_id": plain(event.id),
        "time_ns": event.time_ns,
        "host": plain(event.host),
        "subject": plain(event.subject),
        "verdict": int(decision.verdict),
        "effect": "" if outcome is None else outcome.effect.value,
        "event": _encode(told),
        "decision": _encode(form),
        "outcome": _encode(came) if came else "",
    }


def _encode(form: Mapping[str, Any]) -> str:
    """JSON in ASCII, so that a database of any encoding takes it; of what is not finite there is nothing in it."""
    try:
        text = msgspec.json.encode(form)
    except (UnicodeEncodeError, OverflowError, TypeError):  # half a character; beyond 64 bits; a subclass
        return _in_ascii(form)
    return text.decode() if text.isascii() else _in_ascii(form)


def _found(row: Any) -> Found:
    told: Mapping[str, Any] = json.loads(row.event)
    form: Mapping[str, Any] = json.loads(row.decision)
    came: Mapping[str, Any] = json.loads(row.outcome or "{}")
    votes = tuple(None if vote is None else Verdict(vote) for vote in form["votes"])
    decision = {name: form[name] for name in ("quorum", "score", "shielded", "model", "tolerates")}
    decision["robustness"] = {name: float(value) for name, value in form["robustness"].items()}
    return Found(
        height=row.key // _PLACES,
        event=LiveEvent(time_ns=row.time_ns, **told),
        decision=LiveDecision(
            event_id=told["id"],
            time_ns=row.time_ns,
            host=told["host"],
            subject=told["subject"],
            verdict=Verdict(row.verdict),
            votes=votes,
            evidence=tuple(form["evidence"]),
            **decision,
        ),
        effect=row.effect,
        would=came.get("would", row.effect),
        reasons=tuple(came.get("reasons", ())),
        restriction=came.get("restriction", ""),
    )
