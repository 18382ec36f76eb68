"""Feast as training and serving meet it: one definition, applied from a shell, read alike."""

import math
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import FloatList, Value
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, text

from feature_repo import definitions
from feature_repo.answer_features import GAD7_ANSWERS, PHQ9_ANSWERS
from feature_repo.catalogue import (
    STORED_VIEWS,
    TABLED_VIEWS,
    describe_stored_views,
    list_model_inputs,
)
from feature_repo.feast_library import FeatureStore
from feature_repo.feast_reader import FeastReader
from feature_repo.online import Answers, OnlineFeatures, combine_features, open_reader
from feature_repo.online_store import REPOSITORY, FeatureStoreUnavailableError, OnlineReader
from feature_repo.postgres_reader import (
    PostgresReader,
    decode_value,
    serialise_entity_key,
    unpack,
)
from feature_repo.stored_views import StoredRow
from feature_repo.weekly_sequence import SEQUENCE_CHANNELS
from flows.datasets.labels import INDEX_DATE
from flows.datasets.training_set import join_features, make_entity_frame
from flows.lake.tables import scan_table
from tests.fixtures.landed_tables import make_table
from tests.fixtures.trained_world import SNAPSHOT, make_feast_variables

NOON = datetime(SNAPSHOT.year, SNAPSHOT.month, SNAPSHOT.day, 12, tzinfo=UTC)
EVERYTHING = frozenset({"survey", "wearable", "emr"})
PHQ9, GAD7 = [1, 2, 0, 3, 1, 0, 2, 1, 0], [1, 0, 2, 1, 3, 0, 1]


@pytest.mark.nightly
def test_definitions_are_applied_from_a_shell_once(postgres, tmp_path):
    database = f"feast_{uuid.uuid4().hex[:8]}"
    postgres.create_databases([database])
    variables = make_feast_variables(postgres, database) | {"LAKE_URL": str(tmp_path / "lake")}
    feast = str(Path(sys.executable).with_name("feast"))
    command = [feast, "-c", str(REPOSITORY), "apply"]
    found = subprocess.run(
        command, env=os.environ | variables, capture_output=True, text=True, check=False
    )

    assert found.returncode == 0, found.stderr[-2000:]
    registered = {
        "entities": "entity_name",
        "feature_views": "feature_view_name",
        "on_demand_feature_views": "feature_view_name",
        "feature_services": "feature_service_name",
    }
    engine = create_engine(postgres.url(database))
    with engine.connect() as connection:
        names = {
            name
            for table, column in registered.items()
            for (name,) in connection.execute(text(f"SELECT {column} FROM {table}"))
        }
    engine.dispose()
    assert names - {"__dummy"} == set(definitions.__all__) - {"request"}


@pytest.fixture
def store(in_trained_world) -> FeatureStore:
    return FeatureStore(repo_path=str(REPOSITORY))


@pytest.fixture
def views():
    return describe_stored_views()


@pytest.fixture(params=["postgres", "feast"])
def reader(request, in_trained_world) -> Iterator[OnlineReader]:
    """Both readers of the same rows: every test below holds of each."""
    reader = FeastReader() if request.param == "feast" else open_reader(5)
    yield reader
    reader.close()


def read(
    reader: OnlineReader, person: str, answers: Answers, data_types: frozenset[str] = EVERYTHING
) -> OnlineFeatures:
    views = describe_stored_views()
    return combine_features(views, reader.fetch(views, [person])[person], answers, data_types)


@pytest.fixture
def individuals(in_trained_world) -> list[str]:
    people = scan_table(in_trained_world.lake_url, "people").select("anonymized_id").collect()
    return sorted(people["anonymized_id"])


def test_each_definition_is_registered_once(store):
    assert sorted(view.name for view in store.list_feature_views()) == sorted(
        view.name for view in TABLED_VIEWS
    )
    assert [view.name for view in store.list_on_demand_feature_views()] == ["request_answers"]
    assert [entity.name for entity in store.list_entities() if entity.name != "__dummy"] == [
        "individual"
    ]
    assert [service.name for service in store.list_feature_services()] == ["screening_v1"]


def test_the_models_inputs_are_the_services(store):
    served = {
        feature.name
        for projection in store.get_feature_service("screening_v1").feature_view_projections
        for feature in projection.features
    }
    names = [column.name for column in list_model_inputs()]

    assert len(names) == len(set(names))
    assert set(names) | {f"weekly_{channel}" for channel in SEQUENCE_CHANNELS} <= served


def ask_history(store: FeatureStore, people: list[str], moment: datetime) -> pl.DataFrame:
    """Return the historical features of `people` at `moment`, answering PHQ9 and GAD7."""
    labels = pl.DataFrame(
        {
            "anonymized_id": people,
            INDEX_DATE: [moment.date()] * len(people),
            "index_time": pl.Series([moment] * len(people), dtype=pl.Datetime("us", "UTC")),
            "adverse_course": [False] * len(people),
        }
    )
    answered = zip((*PHQ9_ANSWERS, *GAD7_ANSWERS), (*PHQ9, *GAD7), strict=True)
    entities = make_entity_frame(labels, make_table("surveys")).with_columns(
        pl.lit(float(points)).alias(name) for name, points in answered
    )
    return join_features(store, entities)


def test_training_and_serving_see_the_same_at_the_same_moment(store, reader, individuals):
    chosen = individuals[::8]
    answers = Answers(NOON, PHQ9, GAD7)
    names = [column.name for column in list_model_inputs()]
    known = 0
    for row in ask_history(store, chosen, NOON).to_dicts():
        online = read(reader, row["anonymized_id"], answers, EVERYTHING)
        trained = np.array([row[name] for name in names], dtype=np.float32)
        served = np.array([online.values[name] for name in names], dtype=np.float32)
        known += int((~np.isnan(served)).sum())
        np.testing.assert_array_equal(trained, served)
        for channel in SEQUENCE_CHANNELS:
            weeks = row[f"weekly_{channel}"] or [math.nan] * 26
            np.testing.assert_array_equal(
                np.array(weeks, np.float32),
                np.array(online.sequences[f"weekly_{channel}"], np.float32),
            )

    assert known > 50 * len(chosen)


def find_known(reader: OnlineReader, individuals: list[str]) -> str:
    """Return someone of whom every view knows something."""
    for person in individuals:
        timestamps = read(reader, person, Answers(NOON), EVERYTHING).timestamps
        if all(moment is not None for moment in timestamps.values()):
            return person
    raise AssertionError("nobody has data of every kind")


@pytest.mark.parametrize("days", [0, 15, 91, 401])
def test_what_has_expired_is_blank_online_as_in_training(store, reader, individuals, days):
    person, later = find_known(reader, individuals), NOON + timedelta(days=days)
    (row,) = ask_history(store, [person], later).to_dicts()
    online = read(reader, person, Answers(later, PHQ9, GAD7), EVERYTHING)
    fresh = {name for name, moment in online.timestamps.items() if moment is not None}

    assert fresh == {
        view.name for view in STORED_VIEWS if not view.ttl or view.ttl > timedelta(days=days + 0.5)
    }
    for column in list_model_inputs():
        value = row[column.name]
        expected = math.nan if value is None else np.float32(value)
        np.testing.assert_array_equal(expected, np.float32(online.values[column.name]))


@pytest.mark.parametrize("withheld", sorted(EVERYTHING))
def test_what_is_not_consented_to_is_blank_and_the_rest_is_not(reader, individuals, withheld):
    person = find_known(reader, individuals)
    allowed = EVERYTHING - {withheld}
    online = read(reader, person, Answers(NOON), allowed)
    stored = {view.name: view for view in STORED_VIEWS}
    own = {"survey": "survey_history", "wearable": "wearable_windows", "emr": "care_history"}

    for data_type, view in own.items():
        values = [online.values[feature.name] for feature in stored[view].features]
        assert all(map(math.isnan, values)) is (data_type == withheld)
        assert (online.timestamps[view] is None) is (data_type == withheld)
    for channel, (_, _, data_type) in SEQUENCE_CHANNELS.items():
        if data_type == withheld:
            assert all(map(math.isnan, online.sequences[f"weekly_{channel}"]))
    assert not math.isnan(online.values["age"])


def test_answers_count_whatever_is_stored_or_consented_to(reader, individuals):
    person = find_known(reader, individuals)
    online = read(reader, person, Answers(NOON, PHQ9, GAD7), frozenset())

    assert online.values["phq9_total"] == sum(PHQ9)
    assert online.values["gad7_total"] == sum(GAD7)
    assert math.isnan(online.values["phq9_change"])


def test_a_change_is_seen_against_the_stored_questionnaire(reader, individuals):
    person = find_known(reader, individuals)
    stored = read(reader, person, Answers(NOON), EVERYTHING).values
    asked = read(reader, person, Answers(NOON, phq9_total=14), EVERYTHING).values

    assert asked["phq9_change"] == pytest.approx(14 - stored["stored_phq9_total"], nan_ok=True)
    assert asked["phq9_total"] == 14
    assert math.isnan(asked["phq9_item_1"])


def test_an_unknown_individual_is_not_known(reader):
    online = read(reader, "f" * 32, Answers(NOON, PHQ9), EVERYTHING)

    assert not online.is_known
    assert online.values["phq9_total"] == sum(PHQ9)


def test_nothing_stored_makes_every_input_missing():
    values = combine_features(
        describe_stored_views(), StoredRow(), Answers(NOON), EVERYTHING
    ).values
    assert all(math.isnan(values[column.name]) for column in list_model_inputs())


def test_postgresql_is_read_directly(in_trained_world):
    reader = open_reader(5)
    assert isinstance(reader, PostgresReader)
    reader.close()


def test_both_readers_find_the_same_of_everybody(in_trained_world, individuals, views):
    direct, feast = open_reader(5), FeastReader()
    found = direct.fetch(views, [*individuals, "f" * 32])
    expected = feast.fetch(views, [*individuals, "f" * 32])
    direct.close()

    assert found.keys() == expected.keys()
    assert found["f" * 32] == StoredRow()
    for person, row in found.items():
        assert row.moments == expected[person].moments
        assert row.values.keys() == expected[person].values.keys()
        for name, value in row.values.items():
            np.testing.assert_array_equal(value, expected[person].values[name])


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=64))
def test_an_entity_key_is_feasts_own(anonymized_id):
    key = EntityKey(join_keys=["anonymized_id"], entity_values=[Value(string_val=anonymized_id)])

    assert serialise_entity_key(anonymized_id) == serialize_entity_key(
        key, entity_key_serialization_version=3
    )


@pytest.mark.parametrize("kind", [PostgresReader, lambda _: FeastReader()])
def test_a_store_that_is_not_there_is_said_to_be_away(in_trained_world, monkeypatch, views, kind):
    monkeypatch.setenv("FEAST_ONLINE_PORT", "1")
    reader = kind(2)

    with pytest.raises(FeatureStoreUnavailableError):
        reader.fetch(views, ["f" * 32])
    reader.close()


@pytest.mark.parametrize("missing", ["FEAST_ONLINE_HOST", "FEAST_ONLINE_PASSWORD"])
def test_an_unconfigured_store_is_away(in_trained_world, monkeypatch, views, missing):
    monkeypatch.delenv(missing)

    with pytest.raises(FeatureStoreUnavailableError):
        PostgresReader(2).fetch(views, ["f" * 32])


def test_a_restart_of_the_store_costs_one_read_not_all_later_ones(
    reader, views, individuals, in_trained_world
):
    known = reader.fetch(views, individuals[:1])[individuals[0]]
    engine = create_engine(os.environ["FEAST_REGISTRY_URL"])
    with engine.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    engine.dispose()

    with suppress(FeatureStoreUnavailableError):
        reader.fetch(views, individuals[:1])
    assert reader.fetch(views, individuals[:1])[individuals[0]].moments == known.moments != {}


@given(st.floats(width=32, allow_nan=False))
def test_a_float_is_decoded_as_protobuf_would(number):
    assert decode_value("steps", Value(float_val=number).SerializeToString()) == number


@given(st.lists(st.floats(width=32, allow_nan=False)), st.text())
def test_lists_and_texts_are_decoded_as_protobuf_would(numbers, word):
    weeks = Value(float_list_val=FloatList(val=numbers))

    assert decode_value("weekly_steps", weeks.SerializeToString()) == numbers
    assert decode_value("rnn_key", Value(string_val=word).SerializeToString()) == word


def test_nothing_is_decoded_as_nothing_and_anything_else_refused():
    assert decode_value("steps", Value().SerializeToString()) is None
    with pytest.raises(FeatureStoreUnavailableError, match="steps is stored as neither"):
        decode_value("steps", Value(int64_val=3).SerializeToString())


@given(st.lists(st.binary()))
def test_packed_values_are_unpacked_one_by_one(parts):
    packed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)

    assert list(unpack(packed)) == parts
