"""A pinned release on a drop from elsewhere: assessed, recorded, never landed."""

import tempfile
from pathlib import Path

import mlflow
import numpy as np
import polars as pl
import pytest
from mlflow import MlflowClient
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from flows.comparison import UnknownReleaseError
from flows.datasets.loading import NotEnoughLabelsError
from flows.evaluation.external_record import EXPERIMENT
from flows.evaluation.recalibration import OFFER_FILE, Recalibration
from flows.external_validation import validate_externally
from flows.lake.report import IngestionFailedError
from flows.lake.tables import describe_table, scan_table
from flows.models.registered import open_deployed_release
from flows.recalibration import NoRecalibrationError, recalibrate
from flows.sources.contract import TABLES
from flows.sources.locations import DropLocationError
from mlruns_config.manifest import RELEASE_MODEL, ReleaseManifest
from mlruns_config.registry.transitions import find_production, open_registry
from serving.database.tables import Consent, Prediction
from serving.settings import get_settings
from tests.fixtures.external_drop import write_external_drop
from tests.fixtures.trained_world import forget_settings

LANDED = tuple(name for name in TABLES if name != "consents")


def look_at_state(world) -> dict[str, object]:
    """Return what must stay as it is: every table of the lake, and the database's people."""
    with Session(world.engine) as session:
        counts = [
            session.scalar(select(func.count()).select_from(table))
            for table in (Consent, Prediction)
        ]
    tables = {name: describe_table(world.lake_url, name) for name in LANDED}
    return {"tables": tables, "counts": counts, "temporary": list_temporary()}


def list_temporary() -> list[str]:
    return sorted(path.name for path in Path(tempfile.gettempdir()).glob("mhras-external-*"))


@pytest.fixture(scope="module")
def in_world(trained_world):
    with pytest.MonkeyPatch.context() as patch:
        trained_world.enter(patch)
        client = MlflowClient(trained_world.tracking_uri)
        if client.get_experiment_by_name(EXPERIMENT) is None:
            folder = trained_world.drop.parent / "artifacts" / EXPERIMENT
            client.create_experiment(EXPERIMENT, folder.as_uri())
        yield trained_world
    forget_settings()


@pytest.fixture(scope="module")
def drop(tmp_path_factory) -> Path:
    return write_external_drop(tmp_path_factory.mktemp("external"))


@pytest.fixture(scope="module")
def validated(in_world, drop):
    """The report of a validation, and the state before and after it."""
    before = look_at_state(in_world)
    version = in_world.report.release_version
    report = validate_externally(str(drop), version, source="clinic B", foreign_ids=True)
    return report, before, look_at_state(in_world)


def test_a_drop_outside_the_allowed_places_is_refused(in_world, monkeypatch):
    monkeypatch.setenv("DROP_LOCATIONS", "/nowhere")
    get_settings.cache_clear()
    try:
        with pytest.raises(DropLocationError):
            validate_externally(str(in_world.drop), in_world.report.release_version)
    finally:
        monkeypatch.undo()
        get_settings.cache_clear()


def test_a_release_that_does_not_exist_is_refused(in_world, drop):
    with pytest.raises(UnknownReleaseError, match="no version 999"):
        validate_externally(str(drop), 999)


def test_people_known_here_are_no_external_people(in_world):
    with pytest.raises(NotEnoughLabelsError) as caught:
        validate_externally(str(in_world.drop), in_world.report.release_version)

    assert str(caught.value).startswith("0 labelled index dates of 0 individuals")
    assert "start the run with foreign_ids" in str(caught.value)
    assert list_temporary() == []


def test_a_drop_without_consents_is_withheld_as_a_whole(in_world, drop, tmp_path):
    for path in drop.iterdir():
        if not path.name.startswith("consents"):
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(IngestionFailedError, match="withheld without an active consent"):
        validate_externally(str(tmp_path), in_world.report.release_version, foreign_ids=True)


def test_nothing_of_the_drop_stays_in_this_state(validated):
    _, before, after = validated
    assert after == before
    assert after["temporary"] == []


def test_the_release_is_measured_as_it_answers(validated):
    metrics = validated[0].metrics

    assert metrics["individuals"] > 60
    assert metrics["rows"] > 400
    assert 0.6 < metrics["auroc"] < 0.95
    # Outcomes are rarer there than the release expects.
    assert metrics["observed_over_expected"] < 0.8
    assert metrics["calibration_ici"] > 0.02
    assert np.isfinite(list(metrics.values())).all()


def test_every_row_of_the_drop_with_a_label_was_scored_on_known_features(validated, drop):
    outcomes = pl.concat(pl.read_parquet(path) for path in drop.glob("outcomes*"))
    assert validated[0].metrics["rows"] <= outcomes.height
    # Without the features of the index date a release could not rank by severity.
    assert validated[0].metrics["auroc_phq9_alone"] > 0.65


def test_the_run_links_the_release_and_holds_tables_and_plots(validated, in_world):
    client = MlflowClient(in_world.tracking_uri)
    run = client.get_run(validated[0].run_id)

    assert run.info.run_name == f"release {in_world.report.release_version} on clinic B"
    assert run.data.params["release_version"] == str(in_world.report.release_version)
    assert run.data.tags["lineage.training_run"] == in_world.report.run_id
    names = {
        Path(one.path).name
        for folder in ("evaluation", "plots")
        for one in client.list_artifacts(run.info.run_id, folder)
    }
    assert names >= {"metrics.md", "calibration.csv", "roc.png", "smooth_calibration.png"}


def test_the_card_and_the_version_name_the_validation(validated, in_world):
    report, version = validated[0], str(in_world.report.release_version)
    client = MlflowClient(in_world.tracking_uri)
    known = client.get_model_version(RELEASE_MODEL, version)
    card = mlflow.artifacts.load_text(f"runs:/{in_world.report.run_id}/model_card.md")

    section = card.partition("## External validation\n")[2].partition("\n## ")[0]
    assert "None has been made" not in section
    assert "### clinic B" in section
    assert "of people; the release was trained on people" in section
    assert report.run_id in section
    assert "## Operating points" in card
    assert report.run_id in known.description
    assert known.tags[f"external_validation.{report.run_id}"].startswith("clinic B: AUROC 0.")


def test_no_artifact_of_the_validation_names_a_person(validated, in_world, tmp_path):
    mlflow.artifacts.download_artifacts(f"runs:/{validated[0].run_id}/", dst_path=str(tmp_path))
    texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    people = scan_table(in_world.lake_url, "people").collect()["anonymized_id"]
    assert texts
    assert not [one for one in people for text in texts if one.encode() in text]


def test_a_recalibration_is_offered_and_not_made(validated, in_world):
    report = validated[0]
    registry = open_registry(in_world.tracking_uri, in_world.engine)
    text = mlflow.artifacts.load_text(f"runs:/{report.run_id}/{OFFER_FILE}")
    offer = Recalibration.model_validate_json(text)

    assert "Not applied" in report.recalibration
    assert offer.release == in_world.report.release_version == find_production(registry)
    assert offer.metrics["brier"] < offer.before["brier"]
    assert abs(np.log(offer.metrics["observed_over_expected"])) < 0.2


def test_a_run_without_an_offer_recalibrates_nothing(in_world):
    with pytest.raises(NoRecalibrationError, match="no external validation that offers"):
        recalibrate(in_world.report.run_id)


def test_an_accepted_offer_becomes_a_version_of_its_own_in_staging(validated, in_world):
    registry = open_registry(in_world.tracking_uri, in_world.engine)
    original = in_world.report.release_version
    version = recalibrate(validated[0].run_id, actor="a test")
    try:
        known = registry.client.get_model_version(RELEASE_MODEL, str(version))
        assert (version > original, known.current_stage) == (True, "Staging")
        assert find_production(registry) == original
        before, after = (open_deployed_release(registry, one) for one in (original, version))
        assert after.manifest.lineage["recalibration"]["of_release"] == original
        assert after.manifest.calibration != before.manifest.calibration
        assert after.manifest.members == before.manifest.members
        card = mlflow.artifacts.load_text(f"runs:/{known.run_id}/model_card.md")
        assert f"**Release {original}, recalibrated on the data of" in card
        metrics = registry.client.get_run(known.run_id).data.metrics
        assert 0.8 < metrics["observed_over_expected"] < 1.25
        assert metrics["scoring_milliseconds"] > 0
    finally:
        registry.client.delete_model_version(RELEASE_MODEL, str(version))


def test_an_offer_of_real_people_does_not_move_a_release_of_simulated_ones(
    validated, in_world, monkeypatch
):
    monkeypatch.setattr(ReleaseManifest, "is_simulated", property(lambda _: True))
    with pytest.raises(NoRecalibrationError, match="simulated people is not recalibrated"):
        recalibrate(validated[0].run_id)
