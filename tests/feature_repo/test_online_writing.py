"""Rows that go online directly are those that Feast would write, and Feast reads them so."""

import math
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from feature_repo import definitions
from feature_repo.catalogue import TABLED_VIEWS
from feature_repo.feast_library import FeatureStore
from feature_repo.feast_reader import FeastReader
from feature_repo.feature_tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP, locate_feature_table
from feature_repo.online_store import REPOSITORY, FeatureStoreUnavailableError
from feature_repo.postgres_writer import COLUMNS, PostgresWriter, serialise_keys
from feature_repo.stored_views import JOIN_KEY, SEQUENCE_WEEKS, StoredFeature, StoredView
from flows.features.online import FeastWriter
from flows.features.tables import ensure_table, list_columns, merge_rows
from tests.fixtures.trained_world import make_feast_variables

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
VIEWS = (definitions.survey_history, definitions.weekly_sequence, definitions.sequence_outputs)
FLOATS = st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False)
WEEKS = st.none() | st.lists(
    st.none() | st.floats(width=32, allow_infinity=False),
    min_size=SEQUENCE_WEEKS,
    max_size=SEQUENCE_WEEKS,
)
KINDS = {pl.Float32: FLOATS, pl.List(pl.Float32): WEEKS, pl.String: st.none() | st.text("äb'c0")}


@pytest.fixture(scope="module")
def online(postgres, tmp_path_factory) -> Iterator[Any]:
    """An engine of an online store with Feast's tables, named by the environment."""
    database = f"feast_{uuid.uuid4().hex[:8]}"
    postgres.create_databases([database])
    variables = make_feast_variables(postgres, database)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setenv("LAKE_URL", str(tmp_path_factory.mktemp("lake")))
        for view in TABLED_VIEWS:
            # Feast's sources took LAKE_URL when they were imported.
            uri = locate_feature_table(view.name)
            patch.setattr(view.batch_source.file_options, "uri", uri)
            ensure_table(view)
        FeatureStore(repo_path=str(REPOSITORY)).apply(
            [getattr(definitions, name) for name in definitions.__all__]
        )
        engine = create_engine(postgres.url(database))
        yield engine
        engine.dispose()


@pytest.fixture
def writer(online) -> Iterator[PostgresWriter]:
    writer = PostgresWriter()
    yield writer
    writer.close()


def make_frame(view, rows: list[dict[str, Any]], moment: datetime = NOON) -> pl.DataFrame:
    schema = {name: kind for name, kind in list_columns(view).items() if name != "bucket"}
    keys = {
        JOIN_KEY: [uuid.uuid4().hex for _ in rows],
        EVENT_TIMESTAMP: [moment + timedelta(days=n, microseconds=n) for n in range(len(rows))],
        CREATED_TIMESTAMP: [moment - timedelta(hours=n) for n in range(len(rows))],
    }
    values = {name: [row.get(name) for row in rows] for name in schema if name not in keys}
    return pl.DataFrame(keys | values, schema=schema)


def list_features(view) -> list[str]:
    return [feature.name for feature in view.features]


def read_stored(online, view) -> dict[tuple[bytes, str], tuple[Any, ...]]:
    """Return (value, text, event, created) of every stored row by individual and feature."""
    query = f'SELECT {", ".join(COLUMNS)} FROM "mhras_{view.name}"'
    with online.begin() as connection:
        rows = [tuple(row) for row in connection.execute(text(query))]
        connection.execute(text(f'TRUNCATE "mhras_{view.name}"'))
    return {(bytes(row[0]), row[1]): (bytes(row[2]), *row[3:]) for row in rows}


def read_pages(online, view) -> dict[tuple[bytes, str], int]:
    """Return in which page of the table each row lies."""
    query = f'SELECT entity_key, feature_name, (ctid::text::point)[0] FROM "mhras_{view.name}"'
    with online.connect() as connection:
        return {(bytes(row[0]), row[1]): int(row[2]) for row in connection.execute(text(query))}


# Refusals


def test_a_name_that_is_no_pseudonym_is_not_written():
    with pytest.raises(ValueError, match="not a pseudonym"):
        serialise_keys(pl.Series(["a" * 32, "Anna"]))


def test_another_kind_of_store_is_not_written_directly(monkeypatch, online):
    from feature_repo import postgres_writer

    configuration = {"project": "mhras", "online_store": {"type": "sqlite"}}
    monkeypatch.setattr(postgres_writer, "read_store_configuration", lambda: configuration)
    with pytest.raises(FeatureStoreUnavailableError, match="PostgreSQL"):
        PostgresWriter()


# Equality with Feast


@st.composite
def draw_rows(draw):
    view = draw(st.sampled_from(VIEWS))
    kinds = {name: kind for name, kind in list_columns(view).items() if name in list_features(view)}
    row = st.fixed_dictionaries({name: KINDS[kind] for name, kind in kinds.items()})
    rows = draw(st.lists(row, min_size=1, max_size=3))
    # Feast refuses to write only empty rows, and flows leave those out.
    return view, [one for one in rows if any(value is not None for value in one.values())]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(drawn=draw_rows())
def test_every_row_is_stored_as_feast_stores_it(online, writer, drawn):
    view, rows = drawn
    if not rows:
        return
    frame = make_frame(view, rows)
    writer.write(view.name, list_features(view), frame)
    ours = read_stored(online, view)
    FeastWriter().write(view.name, list_features(view), frame)
    theirs = read_stored(online, view)

    assert ours == theirs


def test_every_unknown_week_is_the_same_nan(online, writer):
    """NumPy's 0/0 is a NaN with a sign; Feast drops it."""
    view = definitions.weekly_sequence
    (feature, *_) = list_features(view)
    weeks = [-math.nan, None, *(float(week) for week in range(SEQUENCE_WEEKS - 2))]
    frame = make_frame(view, [{feature: weeks}])
    writer.write(view.name, list_features(view), frame)
    ours = read_stored(online, view)
    FeastWriter().write(view.name, list_features(view), frame)

    assert ours == read_stored(online, view)


def test_feast_materialize_stores_the_same(online, writer):
    """Feast's own way from the table: two people, of whom one has two days and a correction."""
    view = definitions.survey_history
    names = list_features(view)
    frame = make_frame(view, [dict.fromkeys(names, float(number)) for number in range(3)])
    people = [frame[JOIN_KEY][number] for number in (0, 1, 1)]
    frame = frame.with_columns(
        pl.Series(JOIN_KEY, people), pl.lit(None, pl.Float32).alias(names[0])
    )
    correction = frame.tail(1).with_columns(
        pl.col(CREATED_TIMESTAMP) + timedelta(hours=9), pl.lit(5.0, pl.Float32).alias(names[1])
    )
    merge_rows(view, 0, pl.concat([frame, correction]))
    store = FeatureStore(repo_path=str(REPOSITORY))
    store.materialize(NOON - timedelta(days=1), NOON + timedelta(days=9), [view.name])
    theirs = read_stored(online, view)
    # The table holds every moment; a night serves one of each person.
    writer.write(view.name, names, pl.concat([frame.head(1), correction]))

    assert read_stored(online, view) == theirs


def test_feast_reads_what_was_written(online, writer):
    view = definitions.survey_history
    (feature, *_) = list_features(view)
    frame = make_frame(view, [{feature: 7.5}])
    writer.write(view.name, list_features(view), frame)
    described = StoredView(view.name, None, (StoredFeature(feature, "survey"),))
    reader = FeastReader()
    person = frame[JOIN_KEY][0]
    found = reader.fetch([described], [person])[person]
    reader.close()

    assert found.values == {feature: 7.5}


# What changes


def test_a_row_that_would_not_change_is_left_alone(online, writer):
    view = definitions.survey_history
    names = list_features(view)
    frame = make_frame(view, [dict.fromkeys(names, 1.0), dict.fromkeys(names, 2.0)])
    first = writer.write(view.name, names, frame)
    again = writer.write(view.name, names, frame)
    changed = frame.with_columns(pl.lit(3.0, pl.Float32).alias(names[0]))

    assert (first, again) == (2 * len(names), 0)
    assert writer.write(view.name, names, changed) == 2
    read_stored(online, view)


def test_updates_of_the_next_night_stay_in_their_pages(online, writer):
    view = definitions.survey_history
    names = list_features(view)
    writer.reserve_space_for_updates([view.name])
    frame = make_frame(view, [dict.fromkeys(names, 1.0)] * 50)
    next_night = frame.with_columns(pl.col(EVENT_TIMESTAMP) + timedelta(days=1))
    writer.write(view.name, names, frame)
    before = read_pages(online, view)
    changed = writer.write(view.name, names, next_night)
    after = read_pages(online, view)
    read_stored(online, view)

    assert changed == len(before) == 50 * len(names)
    assert after == before


def test_a_value_that_became_unknown_is_blank(online, writer):
    view = definitions.survey_history
    (name, *_) = list_features(view)
    frame = make_frame(view, [{name: 4.0}])
    writer.write(view.name, [name], frame)
    writer.write(view.name, [name], frame.with_columns(pl.lit(None, pl.Float32).alias(name)))
    ((value, *_),) = read_stored(online, view).values()

    assert value == b""


def test_a_write_that_fails_leaves_nothing_behind(online, writer):
    view = definitions.survey_history
    frame = make_frame(view, [dict.fromkeys(list_features(view), 1.0)])
    with pytest.raises(Exception, match="does not exist"):
        writer.write("no_such_view", list_features(view), frame)

    assert writer.write(view.name, list_features(view), frame) == len(list_features(view))
    read_stored(online, view)
