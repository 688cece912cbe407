"""Tables of the store, and how its database is opened.

Everything in them follows from the ledger and can be made again from it; the store is an index for queries and the
place where what is to be sent waits.
"""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from phalanx.errors import DataError, ExtraMissingError, UsageError

__all__ = ["SCHEMA_VERSION", "Tables", "open_database", "plain", "tables"]

SCHEMA_VERSION = 1
_BUSY_MS = 30_000
# of libpq, unless the URL says otherwise: a database that is gone is given up within two minutes
_PATIENCE = {
    "connect_timeout": 10,
    "tcp_user_timeout": 60_000,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 6,
}
# of the server, unless the URL's options or the user's own settings have a limit
_STATEMENT = (
    "SELECT set_config('statement_timeout', '60s', false) WHERE current_setting('statement_timeout') = '0'"
)
_POSTGRES = ("postgresql", "postgres", "postgresql+psycopg")


@dataclass(frozen=True)
class Tables:
    """The tables, each a ``sqlalchemy.Table``."""

    metadata: Any
    heights: Any
    decisions: Any
    restrictions: Any
    outbox: Any


@cache
def tables() -> Tables:
    """The tables of this version.

    Raises:
        ExtraMissingError: SQLAlchemy is not installed.
    """
    sa = _sqlalchemy()
    metadata = sa.MetaData()
    text, number, truth = sa.Text(), sa.BigInteger(), sa.Boolean()

    def column(name: str, kind: Any, **given: Any) -> Any:
        return sa.Column(name, kind, nullable=False, **given)

    # name -> number: the schema's version, the last height of the decisions, that of what is to be sent
    heights = sa.Table("heights", metadata, column("name", text, primary_key=True), column("value", number))
    decisions = sa.Table(
        "decisions",
        metadata,
        column("key", number, primary_key=True, autoincrement=False),  # height and place in its batch
        column("event_id", text),
        column("time_ns", number),
        column("host", text),
        column("subject", text),
        column("verdict", sa.SmallInteger()),
        column("effect", text),
        column("event", text),
        column("decision", text),
        column("outcome", text),
    )
    sa.Index("decisions_by_event", decisions.c.event_id)
    sa.Index("decisions_by_time", decisions.c.time_ns)
    sa.Index("decisions_by_process", decisions.c.host, decisions.c.subject, decisions.c.key)
    above = decisions.c.verdict > 0
    sa.Index("decisions_above_allow", decisions.c.key, sqlite_where=above, postgresql_where=above)
    restrictions = sa.Table(
        "restrictions",
        metadata,
        column("id", text, primary_key=True),
        column("host", text),
        column("subject", text),
        column("verdict", sa.SmallInteger()),
        column("state", text),
        column("shadow", truth),
        column("asked_ns", number),
        column("body", text),
    )
    sa.Index("restrictions_by_time", restrictions.c.asked_ns)
    outbox = sa.Table(
        "outbox",
        metadata,
        column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        column("id", text, unique=True),
        column("destination", text),
        column("lane", text),
        column("about", text),
        column("state", text),
        column("attempts", sa.Integer()),
        column("due_ns", number),
        column("until_ns", number),
        column("made_ns", number),
        column("ended_ns", number),
        column("event_id", text),
        column("command", text),
        column("problem", text),
    )
    waiting = outbox.c.state == "waiting"
    sa.Index(
        "outbox_waiting",
        outbox.c.destination,
        outbox.c.sequence,
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
    sa.Index("outbox_ended", outbox.c.ended_ns)
    return Tables(metadata, heights, decisions, restrictions, outbox)


def open_database(where: str) -> Any:
    """An engine for a database, with all tables of this version in it.

    Args:
        where: path of an SQLite file (or ``sqlite:///PATH``), or the URL of a PostgreSQL database.

    Raises:
        UsageError: it is neither.
        ExtraMissingError: a package is not installed.
        DataError: it cannot be opened, or was written by a newer version.
    """
    sa = _sqlalchemy()
    url = _url_of(where)
    shown = url.render_as_string(hide_password=True)
    engine = None
    try:
        engine = _sqlite(url) if url.get_backend_name() == "sqlite" else _postgres(url)
        _make_tables(engine, shown)
        opened, engine = engine, None
        return opened
    except (sa.exc.SQLAlchemyError, OSError) as problem:
        reason = str(getattr(problem, "orig", problem)).strip().splitlines()
        raise DataError(
            f"cannot open the store {shown} ({reason[0] if reason else type(problem).__name__}). "
            "Check the path, or that the database runs and lets this user in"
        ) from None
    finally:
        if engine is not None:
            engine.dispose()


def plain(text: str) -> str:
    r"""A text as any database takes it: no NUL, no lone surrogate.

    Example:
        >>> plain("a" + chr(0) + chr(0xD800))
        'a\\x00\\ud800'
    """
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


def _url_of(where: str) -> Any:
    sa = _sqlalchemy()
    if "://" not in where:
        return sa.engine.URL.create("sqlite", database=str(Path(where).expanduser()))
    scheme = where.partition("://")[0]
    try:
        url = sa.engine.make_url(where)
    except (sa.exc.ArgumentError, ValueError):
        raise UsageError(
            f"a store's URL that cannot be read, of scheme {scheme!r}; "
            "expected PATH, sqlite:///PATH or postgresql://USER@HOST/DATABASE"
        ) from None
    if scheme in _POSTGRES:
        try:
            import psycopg  # noqa: F401
        except ImportError:
            raise ExtraMissingError("psycopg", "postgres", "a store in PostgreSQL") from None
        return url.set(drivername="postgresql+psycopg")
    if scheme != "sqlite" or not url.database:
        raise UsageError(
            f"no store of scheme {scheme!r}; expected PATH, sqlite:///PATH or postgresql://USER@HOST/DATABASE"
        )
    return url


def _sqlite(url: Any) -> Any:
    sa = _sqlalchemy()
    if url.database == ":memory:":
        raise DataError("a store in memory would forget at every start; give a path")
    path = Path(url.database)
    if not path.parent.is_dir():
        raise DataError(f"cannot open the store {path}: there is no folder {path.parent}. Make it")
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))  # its owner's alone, as its log will be
    # Transactions begin where we say so: those that write take the lock at once, and wait for it.
    engine = sa.create_engine(
        url, connect_args={"isolation_level": None, "timeout": _BUSY_MS / 1_000, "check_same_thread": False}
    )

    @sa.event.listens_for(engine, "connect")
    def settings(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgres(url: Any) -> Any:
    sa = _sqlalchemy()
    patience = {name: value for name, value in _PATIENCE.items() if name not in url.query}
    engine = sa.create_engine(url, pool_pre_ping=True, connect_args=patience)

    @sa.event.listens_for(engine, "connect")
    def settings(connection: Any, _: Any) -> None:
        connection.execute(_STATEMENT)
        connection.commit()

    return engine


def _make_tables(engine: Any, shown: str) -> None:
    sa, made = _sqlalchemy(), tables()
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(7420001)"))  # one makes them at a time
        made.metadata.create_all(connection)
        heights = made.heights
        found = connection.scalar(sa.select(heights.c.value).where(heights.c.name == "schema"))
        if found is None:
            rows = [("schema", SCHEMA_VERSION), ("decisions", 0), ("sent", 0)]
            connection.execute(heights.insert(), [{"name": name, "value": value} for name, value in rows])
        elif found > SCHEMA_VERSION:
            raise DataError(
                f"the store {shown} is of version {found}; this phalanx knows versions up to {SCHEMA_VERSION}. "
                "Install a newer phalanx, or give another store: it is made again from the ledger"
            )


def _sqlalchemy() -> Any:
    try:
        import sqlalchemy
    except ImportError:
        raise ExtraMissingError("sqlalchemy", "serve", "the store of decisions") from None
    return sqlalchemy
