"""Whoever was erased is gone from every store; everybody else stays, and twice is harmless."""

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from sqlalchemy import create_engine, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from feature_repo.catalogue import TABLED_VIEWS, describe_stored_views
from feature_repo.online import open_reader
from feature_repo.online_store import REPOSITORY
from flows import erasure as erasure_flow
from flows.erasure import ERASED_SINCE_TAG, ErasureIncompleteError, erase_queued
from flows.lake.merging import merge_rows
from flows.lake.tables import erase_rows, locate_table, scan_table
from mlruns_config.manifest import RELEASE_MODEL
from serving.audit.signing import KeyRing, Signer
from serving.database.tables import AuditRow, Consent, ErasureStore, Prediction
from serving.individuals.erasure import FLOW_STORES, erase_individual, list_erasures, list_queued
from tests.fixtures.api import SIGNING_KEY
from tests.fixtures.landed_tables import make_table
from tests.fixtures.trained_world import enter_environment, forget_settings, make_variables

ERASED, KEPT = "0" * 31 + "e", "0" * 31 + "f"
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def variables(postgres, prefect_server, tmp_path_factory):
    return make_variables(postgres, tmp_path_factory.mktemp("erasure"))


@pytest.fixture
def world(variables, monkeypatch):
    """Two individuals in every store."""
    enter_environment(monkeypatch, variables)
    engine = create_engine(variables["DATABASE_URL"])
    fill_lake(variables["LAKE_URL"])
    fill_online_store()
    with Session(engine) as session, session.begin():
        for person in (ERASED, KEPT):
            session.merge(make_consent(person))
    yield engine
    engine.dispose()
    forget_settings()


def fill_lake(lake_url):
    rows = [
        {
            "anonymized_id": person,
            "bucket": 3,
            "instrument": "phq9",
            "answered_at": NOW - timedelta(days=day),
            "item_1": 1,
            "available_at": NOW,
            "ingested_at": NOW - timedelta(hours=1),
        }
        for person in (ERASED, KEPT)
        for day in (10, 40)
    ]
    merge_rows(lake_url, "surveys", make_table("surveys", *rows))


def fill_online_store():
    from feature_repo import definitions
    from feature_repo.demographics import demographics
    from feature_repo.feast_library import FeatureStore

    store = FeatureStore(repo_path=str(REPOSITORY))
    store.apply([getattr(definitions, name) for name in definitions.__all__])
    values = {feature.name: [1.0, 1.0] for feature in demographics.features}
    moments = {"event_timestamp": [NOW] * 2, "created_timestamp": [NOW] * 2}
    frame = pd.DataFrame({"anonymized_id": [ERASED, KEPT], **values, **moments})
    store.write_to_online_store("demographics", frame)


def make_consent(person):
    return Consent(
        anonymized_id=person,
        granted_at=NOW - timedelta(days=1),
        expires_at=NOW + timedelta(days=100),
        data_types=["survey"],
        purposes=["screening"],
        key_id="00000000",
    )


def ask_for_erasure(engine, person=ERASED):
    with Session(engine) as session, session.begin():
        return erase_individual(session, person, "admin_1", Signer(SIGNING_KEY)).erasure.id


def queue_again(session, erasure_id):
    """Ask for the flow's part of an erasure once more."""
    for store in FLOW_STORES:
        session.get(ErasureStore, (erasure_id, store)).state = "queued"


def read_states(engine, erasure_id):
    with Session(engine) as session:
        rows = session.scalars(select(ErasureStore).where(ErasureStore.erasure_id == erasure_id))
        return {row.store: row.state for row in rows}


def find_people(variables, person):
    landed = scan_table(variables["LAKE_URL"], "surveys").collect()["anonymized_id"].to_list()
    reader = open_reader(10)
    online = reader.fetch(describe_stored_views(), [person])[person].moments
    reader.close()
    return landed.count(person), len(online)


# Refusals


def test_what_is_no_pseudonym_erases_nothing(world, variables):
    with pytest.raises(ValueError, match="not a pseudonym"):
        erase_rows(locate_table(variables["LAKE_URL"], "surveys"), "x' OR 'a' = 'a")
    assert scan_table(variables["LAKE_URL"], "surveys").collect().height == 4


def test_a_store_that_cannot_be_emptied_stays_queued_and_the_others_are(
    world, variables, monkeypatch
):
    def fail(*_arguments):
        raise ConnectionError

    erasure_id = ask_for_erasure(world)
    monkeypatch.setattr(erasure_flow, "erase_online_rows", fail)
    monkeypatch.setattr(
        erasure_flow,
        "erase_from_feature_store",
        erasure_flow.erase_from_feature_store.with_options(retries=0),
    )
    with pytest.raises(ErasureIncompleteError, match="feature_store"):
        erase_queued()

    states = read_states(world, erasure_id)
    assert (states["lake"], states["feature_store"]) == ("done", "failed")
    monkeypatch.undo()
    enter_environment(monkeypatch, variables)
    erase_queued()
    assert set(read_states(world, erasure_id).values()) == {"done"}


# Erasures


def test_nobody_queued_is_nothing_done(world):
    assert erase_queued() == []


def test_an_erased_individual_is_gone_from_every_store_and_nobody_else(world, variables):
    assert find_people(variables, ERASED) == (2, 1)
    erasure_id = ask_for_erasure(world)
    reports = erase_queued()

    assert {report.store for report in reports} == set(FLOW_STORES)
    assert find_people(variables, ERASED) == (0, 0)
    assert find_people(variables, KEPT) == (2, 1)
    assert set(read_states(world, erasure_id).values()) == {"done"}
    with Session(world) as session:
        assert list_queued(session) == []


def test_no_file_of_the_lake_names_an_erased_individual_any_more(world, variables):
    ask_for_erasure(world)
    erase_queued()

    for file in Path(variables["LAKE_URL"]).rglob("*"):
        if file.is_file():
            assert ERASED.encode() not in file.read_bytes(), file.name


def test_the_lake_takes_new_rows_after_an_erasure(world, variables):
    ask_for_erasure(world)
    erase_queued()
    fill_lake(variables["LAKE_URL"])

    assert find_people(variables, ERASED)[0] == 2


def test_erasing_again_is_harmless(world, variables):
    erasure_id = ask_for_erasure(world)
    erase_queued()
    with Session(world) as session, session.begin():
        queue_again(session, erasure_id)
    reports = erase_queued()

    assert {report.state for report in reports} == {"done"}
    assert set(read_states(world, erasure_id).values()) == {"done"}
    assert find_people(variables, KEPT) == (2, 1)


def test_the_database_refuses_what_is_recorded_after_an_erasure(world):
    ask_for_erasure(world)
    with Session(world) as session:
        session.add(
            Prediction(
                id=uuid.uuid4(),
                anonymized_id=ERASED,
                created_at=NOW,
                user_id="dr.who",
                risk_score=1,
                risk_band="low",
                confidence=1,
                needs_review=False,
                review_reasons=[],
                arm="production",
                answer={},
                inputs={},
            )
        )
        with pytest.raises(IntegrityError, match="was erased"):
            session.flush()
        session.rollback()
    erase_queued()


def test_a_release_whose_training_had_seen_the_individual_says_so_once(world, variables):
    client = MlflowClient(variables["MLFLOW_TRACKING_URI"])
    with mlflow.start_run(experiment_id="1") as run:
        source = run.info.artifact_uri
    if not client.search_registered_models(f"name='{RELEASE_MODEL}'"):
        client.create_registered_model(RELEASE_MODEL)
    version = client.create_model_version(RELEASE_MODEL, source, run.info.run_id).version
    erasure_id = ask_for_erasure(world)
    erase_queued()
    with Session(world) as session, session.begin():
        queue_again(session, erasure_id)
    fill_lake(variables["LAKE_URL"])
    erase_queued()

    assert client.get_model_version(RELEASE_MODEL, version).tags[ERASED_SINCE_TAG] == "1"


def test_the_receipt_verifies_and_the_trail_still_names_nobody_else(world):
    ask_for_erasure(world)
    erase_queued()
    keys = KeyRing([Signer(SIGNING_KEY).public_key])
    with Session(world) as session:
        latest = list_erasures(session, ERASED)[0]
        assert keys.holds(latest.erasure.receipt)
        assert session.scalars(select(AuditRow).where(AuditRow.anonymized_id == KEPT)).all() == []
    assert {view.name for view in TABLED_VIEWS} >= {"demographics", "sequence_outputs"}
