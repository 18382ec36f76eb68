"""Feast's PostgreSQL online store, written directly: the rows that Feast would write, by COPY.

Feast writes about 130 values of an individual one by one. Here a batch of individuals goes through
PostgreSQL's binary COPY into a table of its own and from there, in one statement, into Feast's; a
row that would not change is left alone. tests/feature_repo/test_online_writing.py compares both.
Source: PostgreSQL manual, COPY, "Binary Format"; Feast's Value.proto.
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import closing
from io import BytesIO

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sqlalchemy import Engine

from feature_repo.individual import CREATED_TIMESTAMP, EVENT_TIMESTAMP, JOIN_KEY
from feature_repo.online_store import FeatureStoreUnavailableError, read_store_configuration
from feature_repo.postgres_reader import connect_online_store, make_value_type, serialise_entity_key
from feature_repo.pseudonyms import PSEUDONYM_PATTERN

WRITE_SECONDS = 300.0
SIGNATURE = b"PGCOPY\n\xff\r\n\x00" + struct.pack(">ii", 0, 0)
TRAILER = struct.pack(">h", -1)
COLUMNS = ("entity_key", "feature_name", "value", "value_text", "event_ts", "created_ts")
#: PostgreSQL counts microseconds from 2000-01-01 UTC.
EPOCH = np.datetime64("2000-01-01T00:00:00", "us")
#: Protobuf's tag of `float_val`: field 6, four bytes.
FLOAT_TAG = 6 << 3 | 5

_CREATE = (
    "CREATE TEMPORARY TABLE incoming (entity_key bytea, feature_name text, value bytea, "
    "value_text text, event_ts timestamptz, created_ts timestamptz) ON COMMIT DROP"
)
_COPY = f"COPY incoming ({', '.join(COLUMNS)}) FROM STDIN (FORMAT binary)"
_MERGE = """
    INSERT INTO "{table}" AS stored ({columns}) SELECT {columns} FROM incoming
    ON CONFLICT (entity_key, feature_name) DO UPDATE SET value = EXCLUDED.value,
        value_text = EXCLUDED.value_text, event_ts = EXCLUDED.event_ts,
        created_ts = EXCLUDED.created_ts
    WHERE (stored.value, stored.event_ts, stored.created_ts)
        IS DISTINCT FROM (EXCLUDED.value, EXCLUDED.event_ts, EXCLUDED.created_ts)
"""

Bytes = NDArray[np.void]


class PostgresWriter:
    """Writes rows of views into the online store of feature_store.yaml.

    Raises FeatureStoreUnavailableError for a store other than PostgreSQL.
    """

    def __init__(self) -> None:
        configuration = read_store_configuration()
        if configuration["online_store"]["type"] != "postgres":
            raise FeatureStoreUnavailableError("only a PostgreSQL online store is written directly")
        self._project = str(configuration["project"])
        self._engine: Engine = connect_online_store(WRITE_SECONDS)

    def write(self, view: str, features: Sequence[str], rows: pl.DataFrame) -> int:
        """Write one row an individual, all its features; return how many values changed.

        `rows` has JOIN_KEY, EVENT_TIMESTAMP, CREATED_TIMESTAMP and the features: numbers, lists of
        numbers or text, null where unknown.
        """
        packed = BytesIO(b"".join([SIGNATURE, *pack_rows(features, rows), TRAILER]))
        with self._engine.connect() as connection:
            connection = connection.execution_options(isolation_level="READ COMMITTED")
            with connection.begin(), closing(connection.connection.cursor()) as cursor:
                cursor.execute(_CREATE)
                cursor.copy_expert(_COPY, packed)
                table = f"{self._project}_{view}"
                cursor.execute(_MERGE.format(table=table, columns=", ".join(COLUMNS)))
                return int(cursor.rowcount)

    def close(self) -> None:
        self._engine.dispose()


def pack_rows(features: Sequence[str], rows: pl.DataFrame) -> Iterator[bytes]:
    """Yield the rows of each feature as PostgreSQL's binary COPY reads them."""
    keys = serialise_keys(rows[JOIN_KEY])
    moments = np.concatenate(
        [count_microseconds(rows[name]) for name in (EVENT_TIMESTAMP, CREATED_TIMESTAMP)], axis=1
    )
    for feature in features:
        column = rows[feature]
        # Feast takes a frame of pandas, where NaN is how a missing number is written.
        is_number = column.dtype == pl.Float32
        known = (column.is_not_null() & (column.is_not_nan() if is_number else True)).to_numpy()
        yield pack_values(feature, keys[~known], None, moments[~known])
        if is_number:
            values = column.to_numpy()[known].astype("<f4")
            yield pack_values(feature, keys[known], values, moments[known])
        else:
            yield from pack_others(feature, keys[known], column.drop_nulls(), moments[known])


def serialise_keys(individuals: pl.Series) -> NDArray[np.bytes_]:
    """Return Feast's keys of pseudonyms, bytes [rows]; raises ValueError for other names."""
    if not individuals.str.contains(f"^(?:{PSEUDONYM_PATTERN.pattern})$").all():
        raise ValueError(f"{JOIN_KEY} holds what is no pseudonym")
    return np.array([serialise_entity_key(individual) for individual in individuals], np.bytes_)


def count_microseconds(instants: pl.Series) -> NDArray[np.void]:
    """Return instants as PostgreSQL's binary timestamps, each behind its length, [rows, 1]."""
    utc = instants.dt.convert_time_zone("UTC").dt.replace_time_zone(None).dt.cast_time_unit("us")
    packed = np.zeros(len(utc), [("length", ">i4"), ("moment", ">i8")])
    packed["length"] = 8
    packed["moment"] = (utc.to_numpy() - EPOCH).astype(np.int64)
    return packed.view("V12").reshape(-1, 1)


def pack_values(
    feature: str, keys: NDArray[np.bytes_], values: NDArray[np.float32] | None, moments: Bytes
) -> bytes:
    """Return rows of one size: an individual's number, or an empty value where it is unknown."""
    name = feature.encode()
    length = keys.dtype.itemsize
    parts: list[tuple[str, str]] = [
        *(("columns", ">i2"), ("key_length", ">i4"), ("key", f"V{length}")),
        *(("name_length", ">i4"), ("name", f"V{len(name)}"), ("value_length", ">i4")),
        *([] if values is None else [("tag", "u1"), ("value", "<f4")]),
        *(("text_length", ">i4"), ("event", "V12"), ("created", "V12")),
    ]
    packed = np.zeros(len(keys), parts)
    packed["columns"], packed["key_length"], packed["name_length"] = 6, length, len(name)
    packed["key"] = keys.view(f"V{length}")
    packed["name"] = np.void(name)
    packed["text_length"] = -1
    packed["event"], packed["created"] = moments[:, 0], moments[:, 1]
    if values is not None:
        packed["value_length"], packed["tag"], packed["value"] = 5, FLOAT_TAG, values
    return packed.tobytes()


def pack_others(
    feature: str, keys: NDArray[np.bytes_], column: pl.Series, moments: Bytes
) -> Iterator[bytes]:
    """Yield rows of lists and of text, whose sizes differ."""
    make = make_value_type()
    name = feature.encode()
    length = keys.dtype.itemsize
    head = struct.pack(">hi", 6, length)
    for key, value, moment in zip(keys.view(f"V{length}"), column, moments, strict=True):
        is_text = isinstance(value, str)
        stored = make(string_val=value) if is_text else make(float_list_val={"val": value})
        yield b"".join(
            [
                *(head, key.tobytes(), _measure(name), _measure(stored.SerializeToString())),
                _measure(value.encode()) if is_text else struct.pack(">i", -1),
                *(part.tobytes() for part in moment),
            ]
        )


def _measure(content: bytes) -> bytes:
    return struct.pack(">i", len(content)) + content
