"""What a flow has scored is what serving would score: the same numbers, or not taken at all."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import mlflow
import numpy as np
import onnxruntime
import polars as pl
import pytest
from mlflow.artifacts import download_artifacts

from feature_repo.catalogue import describe_stored_views, list_model_inputs
from feature_repo.feature_tables import locate_feature_table
from feature_repo.online import Answers, combine_features, open_reader
from feature_repo.sequence_outputs import sequence_outputs
from feature_repo.stored_views import SEQUENCE_OUTPUTS, StoredRow
from feature_repo.weekly_sequence import SEQUENCE_CHANNELS, SEQUENCE_WEEKS
from flows import sequence_scoring
from flows.datasets.rows import ModelRows
from flows.features.moments import find_midnight
from flows.models.assembly import describe_sequence
from flows.models.forecasting import ForecastingMember
from flows.models.member import open_session
from flows.models.registration import register_member
from flows.sequence_scoring import open_member, score_bucket, score_sequences
from mlruns_config.manifest import HEAD_FILE, MemberPin
from serving.scoring.estimate import Inputs, assemble_sequence
from serving.scoring.loaded_release import Member, Release
from serving.scoring.sequence_outputs import find_known_embeddings, make_output_key
from tests.fixtures.brief_networks import fit_network
from tests.fixtures.manifests import make_manifest
from tests.fixtures.simulated_rows import simulate_fitting_data, simulate_rows
from tests.fixtures.trained_world import SNAPSHOT

NOON = datetime(SNAPSHOT.year, SNAPSHOT.month, SNAPSHOT.day, 12, tzinfo=UTC)
EVERYTHING = frozenset({"survey", "wearable", "emr"})


@pytest.fixture(scope="module")
def member() -> ForecastingMember:
    """A network with a head, fitted briefly on rows as the models get them."""
    data = simulate_fitting_data(400)
    names = tuple(column.name for column in list_model_inputs())
    width = len(names)
    return fit_network(
        "rnn",
        replace(
            data,
            names=names,
            rows=widen(data.rows, width),
            stopping_rows=widen(data.stopping_rows, width),
        ),
    )


def widen(rows: ModelRows, width: int) -> ModelRows:
    """Return the rows with as many columns as the catalogue has, its first ones known."""
    features = np.full((len(rows), width), np.nan, np.float32)
    features[:, : rows.features.shape[1]] = rows.features
    return ModelRows(features, rows.sequences)


@pytest.fixture
def pin(in_trained_world, monkeypatch, member) -> MemberPin:
    """The member, registered in the world's MLflow and taken for Production's."""
    mlflow.set_experiment("mhras-training")
    rows = widen(simulate_rows(300, seed=5)[0], len(list_model_inputs()))
    with mlflow.start_run() as run:
        found = register_member("rnn", "rnn", member, rows, run.info.run_id)
    monkeypatch.setattr(sequence_scoring, "find_sequence_members", lambda: [found])
    return found


def make_release(pin: MemberPin) -> Release:
    session: onnxruntime.InferenceSession = open_member(pin.registered_model, pin.version)
    head = open_session(
        download_artifacts(f"models:/{pin.registered_model}/{pin.version}/{HEAD_FILE}")
    )
    manifest = make_manifest(
        members=[pin], sequence=describe_sequence(), stacker={"intercept": 0, "coefficients": {}}
    )
    return Release(
        1, manifest, {pin.name: Member(pin, session, None, head=head)}, datetime.now(UTC)
    )


def find_weeks(row: StoredRow, consented: frozenset[str]) -> np.ndarray:
    seen = combine_features(describe_stored_views(), row, Answers(NOON), consented)
    return assemble_sequence(describe_sequence(), seen.sequences, consented)


def read_rows(people: list[str]) -> dict[str, StoredRow]:
    reader = open_reader(10)
    rows = reader.fetch([*describe_stored_views(), SEQUENCE_OUTPUTS], people)
    reader.close()
    return rows


@pytest.fixture
def consents(in_trained_world) -> dict[str, frozenset[str]]:
    """What each individual of the world lets us use for screening."""
    from flows.lake.consents import read_consented_types

    frame = read_consented_types(in_trained_world.engine, datetime.now(UTC), ["screening"])
    return {
        row["anonymized_id"]: frozenset(name for name in EVERYTHING if row[name])
        for row in frame.to_dicts()
    }


@pytest.fixture
def day() -> np.ndarray:
    """The features of one screening: a severe PHQ-9, the rest unknown. Float32 [1, columns]."""
    columns = [column.name for column in list_model_inputs()]
    return np.array([[3 if one.startswith("phq9_item") else np.nan for one in columns]], np.float32)


def test_without_a_release_nothing_is_scored(in_trained_world, monkeypatch):
    monkeypatch.setattr(sequence_scoring, "find_sequence_members", list)

    assert score_sequences(SNAPSHOT) == 0


def test_a_release_without_sequence_members_has_nothing_to_score(in_trained_world):
    assert score_sequences(SNAPSHOT) == 0


def test_stored_embeddings_are_taken_and_give_what_is_scored_live(pin, consents, day):
    scored = score_sequences(SNAPSHOT)
    rows, release, taken = read_rows(list(consents)), make_release(pin), 0
    for person, row in rows.items():
        weeks = find_weeks(row, consents[person])
        stored = find_known_embeddings(release, row, weeks)
        if stored and not np.isnan(weeks).all():
            inputs = Inputs(day, weeks)
            live = release.members["rnn"].predict(inputs)
            assert release.members["rnn"].predict(inputs, stored["rnn"]) == pytest.approx(
                live, abs=1e-6
            )
            taken += 1

    assert taken == scored > 100


def test_other_weeks_another_version_and_another_consent_are_scored_live(pin, consents):
    score_sequences(SNAPSHOT)
    person, row = next(
        (person, row)
        for person, row in read_rows(list(consents)).items()
        if "rnn_key" in row.values
        and consents[person] == EVERYTHING
        and not np.isnan(row.values["weekly_steps"]).all()
    )
    release, weeks = make_release(pin), find_weeks(row, EVERYTHING)
    (member,) = release.members.values()
    newer_pin = pin.model_copy(update={"version": pin.version + 1})
    newer = replace(release, members={"rnn": replace(member, pin=newer_pin)})
    landed = weeks.copy()
    landed[0, -1, 0] = 3

    assert find_known_embeddings(release, row, weeks)
    assert find_known_embeddings(release, row, landed) == {}
    assert find_known_embeddings(newer, row, weeks) == {}
    withheld = find_weeks(row, EVERYTHING - {"wearable"})
    assert not np.array_equal(withheld, weeks, equal_nan=True), person
    assert find_known_embeddings(release, row, withheld) == {}


def test_people_without_any_weeks_share_what_would_be_scored_live(pin, consents, day):
    release = make_release(pin)
    weeks = np.full((1, SEQUENCE_WEEKS, len(SEQUENCE_CHANNELS)), np.nan, np.float32)
    known = find_known_embeddings(release, StoredRow(), weeks)
    (member,) = release.members.values()
    live = member.predict(Inputs(day, weeks))
    assert member.predict(Inputs(day, weeks), known["rnn"]) == pytest.approx(live, abs=1e-7)


def test_one_embedding_serves_other_answers_of_the_same_day(pin, consents, day):
    release, weeks = make_release(pin), np.zeros((1, 26, len(SEQUENCE_CHANNELS)), np.float32)
    (member,) = release.members.values()
    mild = np.where(np.isnan(day), np.nan, 0).astype(np.float32)
    embedded = member.session.run(["embedding"], {"sequence": weeks, "features": day})[0]
    answers = {}
    for name, answered in (("severe", day), ("mild", mild)):
        inputs = Inputs(answered, weeks)
        answers[name] = member.predict(inputs, embedded)
        assert answers[name] == pytest.approx(member.predict(inputs), abs=1e-6)
    assert answers["severe"] > answers["mild"]


def test_scoring_again_changes_nothing(pin, consents):
    score_sequences(SNAPSHOT)
    before = read_rows(list(consents))
    score_sequences(SNAPSHOT)
    after = read_rows(list(consents))

    for person, row in before.items():
        assert row.values.get("rnn_key") == after[person].values.get("rnn_key")
        assert row.values.get("rnn_embedding") == after[person].values.get("rnn_embedding")


def test_a_past_day_is_scored_and_kept_and_not_served(pin, consents, in_trained_world):
    score_sequences(SNAPSHOT)
    served = read_rows(list(consents))
    weeks = pl.read_delta(locate_feature_table("weekly_sequence"))
    past = weeks.filter(pl.col("event_timestamp") < find_midnight(SNAPSHOT))
    moment = past["event_timestamp"].max()
    bucket = past.filter(pl.col("event_timestamp") == moment)["bucket"][0]
    lake_url = in_trained_world.lake_url

    assert score_bucket.fn([pin], bucket, lake_url, moment.date(), serves=False) > 0
    kept = pl.read_delta(locate_feature_table("sequence_outputs"))
    assert moment in kept["event_timestamp"]
    again = read_rows(list(consents))
    names = ("rnn_key", "rnn_embedding")
    for person, row in served.items():
        assert [again[person].values.get(one) for one in names] == [
            row.values.get(one) for one in names
        ]


def test_every_way_of_not_knowing_is_the_same_key():
    weeks = np.zeros((1, SEQUENCE_WEEKS, 2), np.float32)
    weeks[0, 3] = np.nan
    strange = weeks.copy()
    strange.view(np.uint32)[0, 3] = 0x7FC12345

    assert np.isnan(strange[0, 3]).all()
    assert make_output_key(1, weeks) == make_output_key(1, strange)
    assert make_output_key(1, weeks) != make_output_key(2, weeks)


def test_the_view_is_what_serving_takes_it_for():
    assert sequence_outputs.name == SEQUENCE_OUTPUTS.name
    assert sequence_outputs.ttl == SEQUENCE_OUTPUTS.ttl == timedelta(days=14)
    assert [one.name for one in sequence_outputs.features] == [
        feature.name for feature in SEQUENCE_OUTPUTS.features
    ]
