"""kill -9 in the middle of a flow, then the same flow again: nothing lost, nothing doubled."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

from feature_repo.catalogue import TABLED_VIEWS, describe_stored_views
from feature_repo.feature_tables import locate_feature_table
from feature_repo.online import open_reader
from feature_repo.stored_views import JOIN_KEY
from flows.erasure import erase_queued
from flows.ingestion import LANDED_TABLES, ingest
from flows.lake.tables import locate_table, scan_table
from flows.materialisation import materialise_features
from flows.reconciliation import reconcile_runs
from mlruns_config.manifest import MEMBER_MODELS, RELEASE_MODEL
from mlruns_config.registry.reconcile import compare_productions
from mlruns_config.registry.transitions import find_production, open_registry, roll_back
from serving.audit.signing import Signer
from serving.database.tables import ErasureStore, Prediction
from serving.individuals.erasure import erase_individual, list_queued
from tests.fixtures.api import SIGNING_KEY
from tests.fixtures.fault_world import World
from tests.fixtures.killed_flows import start_flow
from tests.fixtures.lake_contents import WHEN, count_versions, get_version, read_lake
from tests.fixtures.trained_world import (
    GATES,
    SNAPSHOT,
    TABULAR_MEMBERS,
    TrainedWorld,
    train_small,
)
from tests.fixtures.world_server import served_world

__all__ = ["served_world"]


def read_features() -> dict[str, pl.DataFrame]:
    tables = {view.name: locate_feature_table(view.name) for view in TABLED_VIEWS}
    return {name: _order_features(pl.read_delta(where)) for name, where in tables.items()}


def _order_features(rows: pl.DataFrame) -> pl.DataFrame:
    key = [JOIN_KEY, "event_timestamp"]
    assert rows.select(pl.struct(*key, "created_timestamp").n_unique()).item() == rows.height
    kept = rows.drop([name for name in WHEN if name in rows.columns])
    return kept.select(sorted(kept.columns)).unique(key, keep="any").sort(key)


def count_consents(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM consent")).scalar_one())


def test_an_ingestion_that_was_killed_lands_everything_once_when_it_is_run_again(
    make_empty_world: Callable[[str], World], small_drop: Path
) -> None:
    undisturbed = make_empty_world("undisturbed")
    ingest(str(small_drop))
    expected, consents = read_lake(undisturbed.lake_url), count_consents(undisturbed.engine)

    world = make_empty_world("killed")
    # The table with the most rows: it lands in several commits.
    days = locate_table(world.lake_url, "wearable_days")
    call = f"flows.ingestion:ingest({str(small_drop)!r})"
    with start_flow(call, world.variables, world.folder / "log") as running:
        running.kill_when(lambda: get_version(days) >= 1)
    left = scan_table(world.lake_url, "wearable_days").collect().height
    assert 0 < left < expected["wearable_days"].height  # it was in the middle

    report = ingest(str(small_drop))
    assert count_consents(world.engine) == consents
    for name, rows in read_lake(world.lake_url).items():
        assert rows.equals(expected[name]), name
    counts = report.tables["wearable_days"]
    assert (counts.inserted, counts.unchanged) == (expected["wearable_days"].height - left, left)


@pytest.mark.nightly
def test_an_erasure_that_was_killed_is_carried_out_when_it_is_run_again(
    world: World, small_drop: Path
) -> None:
    ingest(str(small_drop))
    person = scan_table(world.lake_url, "surveys").collect()[JOIN_KEY][0]
    others = scan_table(world.lake_url, "surveys").filter(pl.col(JOIN_KEY) != person)
    kept = others.select(pl.len()).collect().item()
    with Session(world.engine) as session, session.begin():
        erasure = erase_individual(session, person, "admin", Signer(SIGNING_KEY)).erasure.id
    people = locate_table(world.lake_url, "people")
    before = get_version(people)

    call = "flows.erasure:erase_queued()"
    with start_flow(call, world.variables, world.folder / "log") as running:
        running.kill_when(lambda: get_version(people) > before)
    with Session(world.engine) as session:
        assert [one.id for one in list_queued(session)] == [erasure]  # not done, and known

    erase_queued()
    for table in LANDED_TABLES:
        rows = scan_table(world.lake_url, table.name)
        assert rows.filter(pl.col(JOIN_KEY) == person).collect().is_empty()
    surveys = scan_table(world.lake_url, "surveys")
    assert surveys.select(pl.len()).collect().item() == kept
    with Session(world.engine) as session:
        states = session.scalars(select(ErasureStore.state)).all()
        assert set(states) == {"done"}


@pytest.mark.nightly
def test_features_that_were_killed_are_whole_when_they_are_run_again(
    make_empty_world: Callable[[str], World], small_drop: Path
) -> None:
    make_empty_world("undisturbed")
    ingest(str(small_drop))
    materialise_features(SNAPSHOT)
    expected, online = read_features(), read_online()

    world = make_empty_world("killed")
    ingest(str(small_drop))
    table = locate_feature_table("weekly_sequence")
    call = (
        "flows.materialisation:materialise_features(__import__('datetime').date"
        f"({SNAPSHOT.year}, {SNAPSHOT.month}, {SNAPSHOT.day}))"
    )
    with start_flow(call, world.variables, world.folder / "log") as running:
        running.kill_when(lambda: get_version(table) >= 5)
    assert pl.read_delta(table).height < expected["weekly_sequence"].height

    materialise_features(SNAPSHOT)
    for name, rows in read_features().items():
        assert rows.equals(expected[name]), name
    assert read_online() == online


def read_online() -> dict[str, int]:
    """Return how many views of each individual are online."""
    people = pl.read_delta(locate_feature_table("demographics"))[JOIN_KEY].unique().to_list()
    reader = open_reader(10)
    try:
        found = reader.fetch(describe_stored_views(), people)
    finally:
        reader.close()
    return {person: len(row.moments) for person, row in found.items()}


@pytest.mark.nightly
@pytest.mark.parametrize("moment", ["a member is registered", "the release is registered"])
def test_a_training_that_was_killed_leaves_production_and_is_marked(
    in_trained_world: TrainedWorld,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    moment: str,
) -> None:
    registry = open_registry(in_trained_world.tracking_uri, in_trained_world.engine)
    production = find_production(registry)
    model = MEMBER_MODELS["lightgbm"] if moment.startswith("a member") else RELEASE_MODEL
    known = count_versions(registry.client, model)
    call = f"flows.training:train(members={TABULAR_MEMBERS!r}, actor='a killed worker')"
    with start_flow(call, in_trained_world.variables, tmp_path / "log") as running:
        running.kill_when(lambda: count_versions(registry.client, model) > known)

    assert find_production(registry) == production
    assert compare_productions(registry).agree  # nothing is half promoted
    found = reconcile_runs(silence_minutes=0)
    assert any(one.startswith("flow run") and "Crashed" in one for one in found)
    assert any(one.startswith("MLflow run training") for one in found)
    assert any(f"{model} " in one and "half registered" in one for one in found)

    again = train_small(monkeypatch, GATES)
    assert again.stage == "Production"
    assert find_production(registry) == again.release_version
    assert roll_back(registry, "a test", "others read this world") == production


@pytest.mark.nightly
def test_a_batch_that_was_killed_screens_everybody_once_when_it_is_run_again(
    served_world: TrainedWorld, tmp_path: Path
) -> None:
    from flows.batch_screening import screen_everybody

    batch = f"killed-{datetime.now(UTC):%H%M%S}"
    whole = screen_everybody(f"{batch}-undisturbed").screened
    server = os.environ["MLFLOW_TRACKING_URI"]
    variables = served_world.variables | {"MLFLOW_TRACKING_URI": server, "BUCKET_WORKERS": "1"}
    call = f"flows.batch_screening:screen_everybody({batch!r})"
    with start_flow(call, variables, tmp_path / "log") as running:
        running.kill_when(lambda: 0 < count_answers(served_world.engine, batch) < whole)

    left = count_answers(served_world.engine, batch)
    assert 0 < left < whole
    again = screen_everybody(batch)
    assert (again.screened, again.screened_before) == (whole - left, left)
    assert count_answers(served_world.engine, batch) == whole


def count_answers(engine: Engine, batch: str) -> int:
    with Session(engine) as session:
        answered = select(func.count()).where(Prediction.batch == batch)
        return session.scalar(answered) or 0
