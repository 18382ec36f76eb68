"""A training from the lake to a registered release, on the small world."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import onnx
import pandas as pd
import polars as pl
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from prefect.logging import disable_run_logger
from sklearn.metrics import roc_auc_score

from feature_repo.catalogue import list_model_inputs
from feature_repo.weekly_sequence import SEQUENCE_CHANNELS
from flows.datasets.loading import NotEnoughLabelsError, blank_unconsented, load_training_set
from flows.datasets.training_set import TrainingSet
from flows.lake.tables import scan_table
from flows.models.data_types import blank_data_types, find_patterns
from flows.models.member import open_graph, score_graph
from flows.models.registered import open_deployed_release
from flows.runtime.locks import AlreadyRunningError, run_alone
from flows.training import train
from mlruns_config.experiments import EXPERIMENTS, MODELS, NOTE_TAG, TRAINING
from mlruns_config.gates import BEST_SO_FAR, COMPARED_WITH
from mlruns_config.manifest import MEMBER_MODELS, RELEASE_MODEL, hash_file
from mlruns_config.registry.transitions import (
    find_production,
    open_registry,
    read_evaluated,
    read_ledger,
    read_manifest,
)
from serving.scoring.doubts import Outputs, estimate
from tests.fixtures.trained_world import forget_settings, train_small

PLOTS = {"roc", "precision_recall", "calibration", "decision_curve", "score_distribution"}
EXECUTABLE = {".pkl", ".pickle", ".joblib", ".cloudpickle", ".pt", ".pth", ".pt2", ".skops"}


@pytest.fixture
def client(in_trained_world) -> MlflowClient:
    return MlflowClient(in_trained_world.tracking_uri)


@pytest.fixture
def run(client, in_trained_world):
    return client.get_run(in_trained_world.report.run_id)


@pytest.fixture
def registry(in_trained_world):
    return open_registry(in_trained_world.tracking_uri, in_trained_world.engine)


@pytest.fixture
def manifest(registry, in_trained_world):
    return read_manifest(registry, in_trained_world.report.release_version)


@pytest.fixture
def evaluated(registry, in_trained_world):
    return read_evaluated(registry, in_trained_world.report.release_version)


@pytest.fixture
def artifacts(in_trained_world) -> list[Path]:
    """Every file of every run and model of the world's trainings."""
    root = Path(in_trained_world.tracking_uri.removeprefix("sqlite:///")).parent / "artifacts"
    return [path for path in root.rglob("*") if path.is_file()]


def test_one_training_runs_at_a_time(in_trained_world):
    with run_alone("training"), pytest.raises(AlreadyRunningError, match="another training"):
        train(members=["logistic_regression"])
    with run_alone("training"):  # it is free again
        pass


def test_an_empty_lake_has_too_few_labels(in_trained_world, tmp_path, monkeypatch):
    monkeypatch.setenv("LAKE_URL", str(tmp_path / "lake"))
    forget_settings()
    with pytest.raises(NotEnoughLabelsError) as caught:
        load(str(tmp_path / "lake"))

    assert str(caught.value).startswith("0 labelled index dates of 0 individuals")
    assert "at least 400 and 60 are needed" in str(caught.value)


@pytest.fixture(scope="module")
def second_training(trained_world, tmp_path_factory):
    """The same training again, judged by a gate that nothing passes."""
    gates = tmp_path_factory.mktemp("gates") / "gates.toml"
    gates.write_text(
        '[[gate]]\nmetric = "auroc"\nminimum = 1.0\nreason = "a test"\ndecided = 2026-01-01\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        trained_world.enter(patch)
        report = train_small(patch, gates)
    forget_settings()
    return report


def test_a_release_that_fails_a_gate_stays_in_staging_with_the_reason(
    second_training, trained_world, registry
):
    version = second_training.release_version
    known = registry.client.get_model_version(RELEASE_MODEL, str(version))

    assert second_training.stage == known.current_stage == "Staging"
    assert "at least 1 is needed" in second_training.refused
    assert find_production(registry) == trained_world.report.release_version
    assert [entry.result for entry in read_ledger(registry, version)] == ["promoted", "refused"]


def test_the_same_seed_gives_the_same_metrics(second_training, trained_world):
    first, again = trained_world.report.metrics, second_training.metrics
    timed = {name for name in first if name.endswith("milliseconds")}

    compared = {name for name in again if "vs_production" in name}
    best = {name for name in again if "vs_best" in name} | {BEST_SO_FAR}
    assert set(first) == set(again) - compared - best - {COMPARED_WITH}
    # The same release as its own rival is neither better nor worse on anybody.
    assert [again[name] for name in sorted(compared)] == pytest.approx([0] * 9, abs=1e-6)
    assert again[COMPARED_WITH] == trained_world.report.release_version
    assert {name: again[name] for name in first if name not in timed} == pytest.approx(
        {name: value for name, value in first.items() if name not in timed}, abs=1e-6
    )


def test_a_training_ends_with_a_release_in_production(trained_world, registry):
    report = trained_world.report
    known = registry.client.get_model_version(RELEASE_MODEL, str(report.release_version))

    assert (report.stage, report.refused) == ("Production", "")
    assert known.current_stage == "Production"
    assert find_production(registry) == report.release_version
    assert [entry.to_stage for entry in read_ledger(registry, report.release_version)] == [
        "Staging",
        "Production",
    ]


def test_metrics_are_those_of_a_hard_cohort(trained_world):
    metrics = trained_world.report.metrics

    assert 0.6 < metrics["auroc"] < 0.95
    assert metrics["auprc"] > metrics["prevalence"]
    assert metrics["held_out_rows"] > 200
    assert np.isfinite(list(metrics.values())).all()


def test_the_run_says_what_it_was_made_of(run, trained_world):
    tags = run.data.tags

    assert tags["lineage.validation"] == f"passed, run {trained_world.validation_run_id}"
    assert "surveys@" in tags["lineage.tables"]
    assert tags["lineage.simulated"] == "no"
    assert tags["lineage.environment"].startswith("Python 3.11")
    assert not [name for name, value in tags.items() if "lineage" in name and "{" in value]
    assert tags["lineage.feature_service"] == "screening_v1"
    assert len(tags["lineage.git_commit"]) in (7, 40)
    assert tags["lineage.flow_run_id"]
    datasets = {one.dataset.name for one in run.inputs.dataset_inputs}
    assert {name.split("@")[0] for name in datasets} >= {"people", "surveys", "wearable_days"}
    assert all(one.dataset.digest for one in run.inputs.dataset_inputs)


def test_members_are_trained_in_child_runs_and_pinned(client, run, manifest, evaluated):
    children = client.search_runs(
        [run.info.experiment_id], f"tags.mlflow.parentRunId = '{run.info.run_id}'"
    )

    pins = [*manifest.members, *evaluated.members]
    assert {child.info.run_id for child in children} == {pin.run_id for pin in pins}
    for child in children:
        assert child.data.metrics["graph_parity_difference"] < 1e-4
        assert child.data.metrics["fitting_seconds"] > 0
        assert child.data.params


def test_a_reviewer_finds_plots_fairness_and_metrics(client, run):
    def names(folder: str) -> set[str]:
        found = client.list_artifacts(run.info.run_id, folder)
        return {Path(one.path).name for one in found}

    assert names("plots") >= {f"{plot}.png" for plot in PLOTS}
    assert names("evaluation") >= {"fairness.csv", "metrics.md"}
    assert "auroc_interval_low" in run.data.metrics


def test_no_artifact_names_an_individual(artifacts, in_trained_world):
    people = scan_table(in_trained_world.lake_url, "people").select("anonymized_id").collect()
    needles = [person.encode() for person in people["anonymized_id"]]
    for path in artifacts:
        content = path.read_bytes()
        assert not any(needle in content for needle in needles), path.name


def test_no_artifact_can_execute_anything(artifacts):
    assert len(artifacts) > 10
    assert [path.name for path in artifacts if path.suffix in EXECUTABLE] == []
    # A pickle begins with its protocol, whatever the file is called.
    assert [path.name for path in artifacts if path.read_bytes()[:1] == b"\x80"] == []


@pytest.fixture
def stored(client, manifest, tmp_path) -> dict[str, Path]:
    """The artifacts of each member's registered version."""
    return download_members(manifest, tmp_path)


def download_members(manifest, folder: Path) -> dict[str, Path]:
    return {
        pin.name: Path(
            mlflow.artifacts.download_artifacts(
                f"models:/{pin.registered_model}/{pin.version}", dst_path=str(folder / pin.name)
            )
        )
        for pin in manifest.members
    }


def test_pinned_hashes_are_those_of_the_stored_files(manifest, stored):
    for pin in manifest.members:
        assert pin.registered_model == MEMBER_MODELS[pin.name.removeprefix("worsening_")]
        assert "model.onnx" in pin.artifacts
        for name, digest in pin.artifacts.items():
            assert hash_file(stored[pin.name] / name) == digest


def load(lake_url: str) -> TrainingSet:
    with disable_run_logger():  # outside of a run there is none
        return load_training_set.fn(lake_url)


@pytest.fixture(scope="module")
def training_set(trained_world) -> Iterator[TrainingSet]:
    with pytest.MonkeyPatch.context() as patch:
        trained_world.enter(patch)
        yield load(trained_world.lake_url)
    forget_settings()


def test_mlflow_loads_the_release_in_production_and_predicts_from_a_table(
    training_set, registry, in_trained_world
):
    rows = training_set.rows.select(training_set.split.held_out)
    names = [column.name for column in list_model_inputs()]
    table = pd.DataFrame(rows.features.astype(np.float64), columns=names)
    model = mlflow.pyfunc.load_model(f"models:/{RELEASE_MODEL}/Production")
    predicted = model.predict(table)

    release = open_deployed_release(registry, in_trained_world.report.release_version)
    estimates = predicted["probability_adverse_course_v1"]
    assert estimates.to_numpy() == pytest.approx(release.predict(rows))
    assert predicted["risk_score"].between(0, 100).all()
    assert predicted["risk_score"].corr(estimates, "spearman") > 0.99
    assert predicted["probability_worsening_v1"].between(0, 1).all()
    with pytest.raises(MlflowException, match="phq9_total"):
        model.predict(table.drop(columns="phq9_total"))


def test_experiments_models_and_runs_have_words(client, run, in_trained_world):
    version = in_trained_world.report.release_version
    assert run.info.run_name.startswith(f"release {version}, trained on people 20")
    children = client.search_runs(
        [run.info.experiment_id], f"tags.mlflow.parentRunId = '{run.info.run_id}'"
    )
    names = {child.info.run_name for child in children}
    assert {"lightgbm, evaluated", "lightgbm, deployed: fitted on everything"} <= names
    experiment = client.get_experiment(run.info.experiment_id)
    assert experiment.tags[NOTE_TAG] == EXPERIMENTS[TRAINING]
    models = client.search_registered_models()
    assert {model.name: model.description for model in models} == {
        model.name: MODELS[model.name] for model in models
    }


def test_serving_scores_stored_graphs_as_training_judged_them(
    training_set, evaluated, tmp_path, trained_world
):
    rows = training_set.rows.select(training_set.split.held_out)
    by_member = {
        name: score_graph(open_graph(onnx.load(folder / "model.onnx")), rows)
        for name, folder in download_members(evaluated, tmp_path).items()
        if name != "isolation_forest"
    }
    patterns = find_patterns(rows)
    scored = [
        estimate(
            evaluated,
            Outputs({name: said[n] for name, said in by_member.items()}),
            (),
            str(patterns[n]),
        ).probability
        for n in range(len(rows))
    ]
    judged = roc_auc_score(training_set.labels[training_set.split.held_out], scored)

    assert judged == pytest.approx(trained_world.report.metrics["auroc"], abs=1e-3)


def test_futures_belong_to_the_rows_beside_them(training_set):
    # Whoever is worse by five points and above ten in a later week has the label.
    total = [column.name for column in list_model_inputs()].index("phq9_total")
    now = training_set.rows.features[:, total][:, None]
    later = training_set.futures[:, :12]
    worse = ((later >= 10) & (later - now >= 5)).any(axis=1)

    assert worse.sum() > 50
    assert training_set.labels[worse].all()


def test_what_is_not_consented_to_is_taken_from_training():
    columns = {column.name: [1.0, 1.0] for column in list_model_inputs()}
    weeks = {f"weekly_{channel}": [[1.0], [1.0]] for channel in SEQUENCE_CHANNELS}
    frame = pl.DataFrame({"anonymized_id": ["a", "b"], **columns, **weeks})
    consented = pl.DataFrame(
        {"anonymized_id": ["a"], "survey": [True], "wearable": [False], "emr": [True]}
    )
    first, second = blank_unconsented(frame, consented).to_dicts()

    for column in list_model_inputs():
        kept = column.data_type in (None, "survey", "emr")
        assert (first[column.name] is not None) is kept, column.name
        assert (second[column.name] is not None) is (column.data_type is None)
    assert first["weekly_steps"] is None
    assert first["weekly_phq9"] is not None


def test_taking_data_types_away_blanks_only_them(training_set):
    rows = training_set.rows.select(np.arange(200))
    blanked = blank_data_types(rows, ("wearable",))
    for n, column in enumerate(list_model_inputs()):
        if column.data_type == "wearable":
            assert np.isnan(blanked.features[:, n]).all()
        else:
            np.testing.assert_array_equal(blanked.features[:, n], rows.features[:, n])
    assert not np.array_equal(rows.features, blanked.features, equal_nan=True)
