"""The outbox: what is to be sent waits in the store, in the same transaction as what caused it.

A command becomes one message for every destination and format that is told of it. A message has one id for ever; one
that waits already, or was sent, is not put again. Messages about one process wait in one lane, in their order; a
command to an executor about the same target makes an earlier one void that has not left yet, so that what was undone
never arrives after its undoing.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from phalanx.service.clock import SECOND_NS, Clock
from phalanx.service.commands import Command
from phalanx.service.store import Store, height_of, raise_height
from phalanx.service.webhooks import FORMATS, Destination

__all__ = ["STATES", "Message", "Outbox"]

STATES = ("waiting", "sent", "void", "expired", "given-up")
"""Where a message is: it waits at first; sent once a destination took it; void where a later one took its place;
expired where its time passed; given up after too many attempts."""

_INFORMS_NS = 86_400 * SECOND_NS  # what only informs is of no use later
_AHEAD = 1_000  # messages of a destination that are looked at, to find those that come first in their lanes


@dataclass(frozen=True, slots=True)
class Message:
    """A command for one destination in one format.

    Attributes:
        sequence: its place in the store.
        id: the receiver's: the same however often it is sent.
        destination: name.
        form: of ``webhooks.FORMATS``.
        lane: see ``Command``.
        attempts: so far.
        due_ns: not to be sent before, in ns since 1970.
        until_ns: nor after.
        command: what it tells.
    """

    sequence: int
    id: str
    destination: str
    form: str
    lane: str
    attempts: int
    due_ns: int
    until_ns: int
    command: Command


class Outbox:
    """Messages in the store. Its methods may be called from any thread.

    Args:
        store: where they wait.
        destinations: where they go; what waits for others is given up.
        clock: the time.
        woken: called when something new waits.
    """

    def __init__(
        self,
        store: Store,
        destinations: Sequence[Destination],
        clock: Clock,
        *,
        woken: Callable[[], None] | None = None,
    ) -> None:
        self.destinations = {each.name: each for each in destinations}
        self._store, self._table = store, store.tables.outbox
        self._clock, self._woken = clock, woken

    @property
    def sent_height(self) -> int:
        """The height of the ledger up to which all that is to be sent has been put here."""
        return self._store.last_height("sent")

    def put(self, commands: Sequence[Command], height: int = 0) -> None:
        """Takes commands, with the restrictions that they speak of, whole or not at all.

        Args:
            commands: in their order.
            height: of the ledger's entry up to which nothing else is to be sent, 0 where that is not known.

        Raises:
            DataError: the database failed; nothing was taken.
        """
        if not commands:
            return
        with self._store.writing() as connection:
            self.put_along(connection, commands)
            if height:
                raise_height(connection, self._store.tables, "sent", height)
        if self._woken is not None:
            self._woken()

    def put_along(self, connection: Any, commands: Iterable[Command]) -> None:
        """Takes commands in a transaction that is under way (``Store.writing``, ``Store.insert(along=...)``)."""
        now_ns = self._clock.wall_ns()
        for command in commands:
            if command.restriction is not None:
                self._store.put_restrictions(connection, [command.restriction])
            for destination in self.destinations.values():
                for form in destination.sends:
                    if command.action in FORMATS[form]:
                        self._put_one(connection, destination, form, command, now_ns)

    def heads(self, destination: str) -> list[Message]:
        """Of each lane of a destination the message that comes next, whether due or not; the oldest first."""
        table = self._table
        query = (
            table.select()
            .where(table.c.state == "waiting", table.c.destination == destination)
            .order_by(table.c.sequence)
            .limit(_AHEAD)
        )
        found: dict[str, Message] = {}
        with self._store.reading() as connection:
            for row in connection.execute(query):
                found.setdefault(row.lane, _message(row))
        return list(found.values())

    def end(self, message: Message, state: str, problem: str = "") -> None:
        """A message waits no more: ``STATES``. One that became void meanwhile stays that."""
        self._update(message, {"state": state, "ended_ns": self._clock.wall_ns(), "problem": problem[:500]})

    def retry(self, message: Message, due_ns: int, problem: str) -> None:
        """An attempt failed; the next is not before ``due_ns``."""
        self._update(message, {"attempts": message.attempts + 1, "due_ns": due_ns, "problem": problem[:500]})

    def counts(self) -> dict[str, dict[str, int]]:
        """Destination -> state -> how many messages."""
        from sqlalchemy import func, select

        table = self._table
        query = select(table.c.destination, table.c.state, func.count()).group_by(
            table.c.destination, table.c.state
        )
        counted: dict[str, dict[str, int]] = {name: {} for name in self.destinations}
        with self._store.reading() as connection:
            for destination, state, count in connection.execute(query):
                counted.setdefault(destination, {})[state] = count
        return counted

    def give_up_unlisted(self) -> int:
        """Gives up what waits for destinations that are listed no more; how many."""
        table = self._table
        query = table.update().where(
            table.c.state == "waiting", table.c.destination.not_in(list(self.destinations))
        )
        ended = {
            "state": "given-up",
            "ended_ns": self._clock.wall_ns(),
            "problem": "the destination is not listed",
        }
        with self._store.writing() as connection:
            return connection.execute(query.values(ended)).rowcount

    def _put_one(
        self, connection: Any, destination: Destination, form: str, command: Command, now_ns: int
    ) -> None:
        if self._store.engine.dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert
        else:
            from sqlalchemy.dialects.sqlite import insert
        table = self._table
        row = {
            "id": f"{destination.name}:{command.key}-{form}",
            "destination": destination.name,
            "lane": f"{form}:{command.lane}",
            "about": command.subject_key,
            "state": "waiting",
            "attempts": 0,
            "due_ns": 0,
            "until_ns": _until_ns(command, form),
            "made_ns": now_ns,
            "ended_ns": 0,
            "event_id": command.event_id.encode("ascii", "backslashreplace").decode(),
            "command": json.dumps({"form": form, "command": command.as_json()}),
            "problem": "",
        }
        new = connection.execute(
            insert(table).values(row).on_conflict_do_nothing(index_elements=["id"])
        ).rowcount
        if new and form == "openc2":
            earlier = table.update().where(
                table.c.destination == destination.name,
                table.c.lane == row["lane"],
                table.c.about == command.subject_key,
                table.c.state == "waiting",
                table.c.id != row["id"],
            )
            connection.execute(
                earlier.values(state="void", ended_ns=now_ns, problem="a later one took its place")
            )

    def _update(self, message: Message, values: Mapping[str, Any]) -> None:
        table = self._table
        query = table.update().where(table.c.sequence == message.sequence, table.c.state == "waiting")
        with self._store.writing() as connection:
            connection.execute(query.values(dict(values)))


def store_knows(store: Store, height: int) -> bool:
    """Whether the decisions of a height are in the store."""
    with store.reading() as connection:
        return height_of(connection, store.tables, "decisions") >= height


def _until_ns(command: Command, form: str) -> int:
    restriction = command.restriction
    if form == "openc2" and command.action != "allow" and restriction is not None:
        return restriction.deadline_wall_ns  # what begins a restriction never arrives after its end
    return command.at.wall_ns + _INFORMS_NS


def _message(row: Any) -> Message:
    form = json.loads(row.command)
    return Message(
        row.sequence,
        row.id.partition(":")[2],
        row.destination,
        form["form"],
        row.lane,
        row.attempts,
        row.due_ns,
        row.until_ns,
        Command.of(form["command"]),
    )
