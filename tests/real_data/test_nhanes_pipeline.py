"""NHANES 2017-2018 from a drop to a release, as a person would run it: outcomes, no PHQ-9.

The input contract has no place for general health, limitations and daytime sleepiness, which carry
most of what the survey knows of depression (test_nhanes_training.py has them). So this shows that
such a study trains, is calibrated, and is refused by the gates for its ranking.
"""

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from sqlalchemy import create_engine

from infra.local.postgres import PostgresServer
from mlruns_config.registry.transitions import find_production, open_registry
from tests.fixtures.nhanes import write_nhanes_drop
from tests.fixtures.trained_world import (
    enter_environment,
    forget_settings,
    import_libraries,
    make_variables,
)

PEOPLE, CASES = 5068, 459


@pytest.fixture(scope="module")
def report(
    shared_data: Path,
    postgres: PostgresServer,
    prefect_server: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator["TrainingReport"]:  # noqa: F821 # imported late: it costs seconds
    """The report of the whole way, by the gates of the product."""
    import_libraries()
    from flows.pipeline import run_pipeline

    folder = tmp_path_factory.mktemp("nhanes")
    drop = write_nhanes_drop(shared_data / "nhanes-2017-2018", folder / "drop")
    variables = make_variables(postgres, folder)
    with pytest.MonkeyPatch.context() as patch:
        enter_environment(patch, variables)
        yield run_pipeline(str(drop))
    forget_settings()


@pytest.mark.nightly
def test_a_study_of_one_date_without_questionnaires_trains_a_calibrated_release(report, capsys):
    metrics = report.metrics
    with capsys.disabled():
        shown = {name: round(metrics[name], 3) for name in ("auroc", "auroc_phq9_alone", "ece")}
        print(f"\nNHANES 2017-2018 by the pipeline: {shown}")  # noqa: T201

    assert (metrics["rows"], metrics["adjudicated_share"]) == (PEOPLE, 1.0)
    assert metrics["prevalence"] == pytest.approx(CASES / PEOPLE, abs=0.02)
    # One split of 1,520 rows: chance alone makes 0.02 of it.
    assert metrics["ece"] <= 0.05
    assert 0.55 < metrics["auroc"] < 0.75
    assert metrics["auroc_phq9_alone"] == 0.5
    card = mlflow.artifacts.load_text(f"runs:/{report.run_id}/model_card.md")
    assert "by individual alone" in card


@pytest.mark.nightly
def test_the_gates_refuse_what_ranks_too_weakly(report):
    from serving.settings import get_settings

    assert report.stage == "Staging"
    assert "auroc_low is" in report.refused
    engine = create_engine(get_settings().database_url.get_secret_value())
    assert find_production(open_registry(get_settings().mlflow_tracking_uri, engine)) is None
    engine.dispose()
