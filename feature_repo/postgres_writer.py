"""Feast's PostgreSQL online store, written directly: the rows that Feast would write, by COPY.

Feast writes about 130 values of an individual one by one. Here a batch of individuals goes through
PostgreSQL's binary COPY into a temporary table and from there, in one statement, into Feast's; a
row that would not change is left alone. tests/feature_repo/test_online_writing.py compares both.
Source: PostgreSQL manual, COPY, "Binary Format"; Feast's Value.proto.
Decision: infra/adr/0084-online-rows-by-copy.md.
"""

import math
import os
import struct
from collections.abc import Iterator, Sequence

import polars as pl
import psycopg
from psycopg import sql

from feature_repo.feature_tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from feature_repo.online_store import FeatureStoreUnavailableError, read_store_configuration
from feature_repo.postgres_reader import FLOAT_TAG, make_value_type, serialise_entity_key
from feature_repo.pseudonyms import PSEUDONYM_PATTERN
from feature_repo.stored_views import JOIN_KEY

#: How long one statement may take.
WRITE_SECONDS = 300
#: Seconds in which the server must accept a connection, and acknowledge what is sent.
CONNECT_SECONDS = 10
#: How full an insert makes a page of a table; the rest holds the next night's versions of its rows.
FILL_PERCENT = 45
SIGNATURE = b"PGCOPY\n\xff\r\n\x00" + struct.pack(">ii", 0, 0)
TRAILER = struct.pack(">h", -1)
COLUMNS = ("entity_key", "feature_name", "value", "value_text", "event_ts", "created_ts")
#: PostgreSQL counts microseconds from 2000-01-01 UTC, Unix from 1970-01-01.
POSTGRES_EPOCH = 946_684_800_000_000

_NULL = struct.pack(">i", -1)
_HEAD, _LENGTH, _INSTANT = struct.Struct(">hi"), struct.Struct(">i"), struct.Struct(">iq")
_FLOAT = struct.Struct("<f")
_FLOAT_HEAD = _LENGTH.pack(1 + _FLOAT.size) + bytes([FLOAT_TAG])
#: A value that holds nothing, and its text.
_UNKNOWN = _LENGTH.pack(0) + _NULL

# Timestamps without a zone, as Feast sends them: PostgreSQL casts both in the same way.
_CREATE = (
    "CREATE TEMPORARY TABLE incoming (entity_key bytea, feature_name text, value bytea, "
    "value_text text, event_ts timestamp, created_ts timestamp) ON COMMIT DROP"
)
_COPY = "COPY incoming FROM STDIN (FORMAT binary)"
_MERGE = """
    INSERT INTO {table} AS stored ({columns}) SELECT {columns} FROM incoming
    ON CONFLICT (entity_key, feature_name) DO UPDATE SET value = EXCLUDED.value,
        value_text = EXCLUDED.value_text, event_ts = EXCLUDED.event_ts,
        created_ts = EXCLUDED.created_ts
    WHERE (stored.value, stored.value_text, stored.event_ts, stored.created_ts)
        IS DISTINCT FROM
        (EXCLUDED.value, EXCLUDED.value_text, EXCLUDED.event_ts, EXCLUDED.created_ts)
"""


class PostgresWriter:
    """Writes rows of views into the online store of feature_store.yaml; close it after use.

    Raises FeatureStoreUnavailableError for a store other than PostgreSQL, KeyError where the
    environment does not name one.
    """

    def __init__(self) -> None:
        configuration = read_store_configuration()
        if configuration["online_store"]["type"] != "postgres":
            raise FeatureStoreUnavailableError("only a PostgreSQL online store is written directly")
        self._project = str(configuration["project"])
        self._connection = _connect()

    def write(self, view: str, features: Sequence[str], rows: pl.DataFrame) -> int:
        """Write one row an individual, all its features; return how many values changed.

        `rows` has JOIN_KEY, EVENT_TIMESTAMP, CREATED_TIMESTAMP and the features: numbers, lists of
        numbers or text, null where unknown. All of it is written, or nothing.
        """
        columns = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
        table = sql.Identifier(f"{self._project}_{view}")
        with self._connection.transaction(), self._connection.cursor() as cursor:
            # In the transaction, because a pooler may give the next one another session.
            cursor.execute(f"SET LOCAL statement_timeout = '{WRITE_SECONDS}s'")
            cursor.execute(_CREATE)
            with cursor.copy(_COPY) as copy:
                for part in pack_rows(features, rows):
                    copy.write(part)
            cursor.execute(sql.SQL(_MERGE).format(table=table, columns=columns))
            return cursor.rowcount

    def reserve_space_for_updates(self, views: Sequence[str]) -> None:
        """Leave room in the pages of views' tables, once Feast has created them.

        Nearly every row of a view with a time to live changes each night. An update that fits
        into its page touches no index.
        """
        with self._connection.transaction():
            for view in views:
                table = sql.Identifier(f"{self._project}_{view}")
                statement = sql.SQL("ALTER TABLE {} SET (fillfactor = {})")
                self._connection.execute(statement.format(table, sql.Literal(FILL_PERCENT)))

    def close(self) -> None:
        self._connection.close()


def _connect() -> psycopg.Connection:
    return psycopg.connect(
        user=os.environ["FEAST_ONLINE_USER"],
        password=os.environ["FEAST_ONLINE_PASSWORD"],
        host=os.environ["FEAST_ONLINE_HOST"],
        port=os.environ["FEAST_ONLINE_PORT"],
        dbname=os.environ["FEAST_ONLINE_DATABASE"],
        sslmode=os.environ.get("FEAST_ONLINE_SSLMODE", "require"),
        autocommit=True,
        connect_timeout=CONNECT_SECONDS,
        # A peer that vanished ends the write, and the flow's retry begins another.
        keepalives_idle=CONNECT_SECONDS,
        keepalives_interval=1,
        keepalives_count=3,
        tcp_user_timeout=CONNECT_SECONDS * 1000,
    )


def pack_rows(features: Sequence[str], rows: pl.DataFrame) -> Iterator[bytes]:
    """Yield what binary COPY reads: a head, the rows of each individual, an end."""
    keys = serialise_keys(rows[JOIN_KEY])
    heads = [_HEAD.pack(len(COLUMNS), len(key)) + key for key in keys]
    instants = zip(
        *(pack_instants(rows[name]) for name in (EVENT_TIMESTAMP, CREATED_TIMESTAMP)), strict=True
    )
    ends = [event + created for event, created in instants]
    columns = []
    for feature in features:
        name = _measure(feature.encode())
        parts = zip(heads, pack_values(rows[feature]), ends, strict=True)
        columns.append([head + name + value + end for head, value, end in parts])
    yield SIGNATURE
    # The rows of an individual lie side by side, because a screening reads all of them.
    for row in zip(*columns, strict=True):
        yield b"".join(row)
    yield TRAILER


def serialise_keys(individuals: pl.Series) -> list[bytes]:
    """Return Feast's keys of pseudonyms; raises ValueError for other names."""
    if not individuals.str.contains(f"^(?:{PSEUDONYM_PATTERN.pattern})$").all():
        raise ValueError(f"{JOIN_KEY} holds a value that is not a pseudonym")
    return [serialise_entity_key(individual) for individual in individuals.to_list()]


def pack_instants(instants: pl.Series) -> list[bytes]:
    """Return instants as PostgreSQL's binary timestamps in UTC, each behind its length."""
    microseconds = instants.dt.timestamp("us") - POSTGRES_EPOCH
    return [_INSTANT.pack(8, moment) for moment in microseconds.to_list()]


def pack_values(column: pl.Series) -> list[bytes]:
    """Return each value as Feast serialises it, and its text, each behind its length."""
    if column.dtype == pl.Float32:
        return [pack_number(number) for number in column.to_list()]
    if column.dtype == pl.String:
        return [_UNKNOWN if text is None else pack_text(text) for text in column.to_list()]
    return [_UNKNOWN if each is None else pack_numbers(each) for each in column.to_list()]


def pack_number(number: float | None) -> bytes:
    # Feast takes a frame of pandas, where NaN is how a missing number is written.
    if number is None or math.isnan(number):
        return _UNKNOWN
    return _FLOAT_HEAD + _FLOAT.pack(number) + _measure(str(number).encode())


def pack_numbers(numbers: Sequence[float | None]) -> bytes:
    """Return a list, NaN where a number in it is unknown; lists have no text."""
    # Feast writes one NaN only; others differ in their sign and in bits without a meaning.
    alike = [math.nan if each is None or math.isnan(each) else each for each in numbers]
    return _measure(make_value_type()(float_list_val={"val": alike}).SerializeToString()) + _NULL


def pack_text(text: str) -> bytes:
    value = make_value_type()(string_val=text).SerializeToString()
    return _measure(value) + _measure(text.encode())


def _measure(content: bytes) -> bytes:
    return _LENGTH.pack(len(content)) + content
