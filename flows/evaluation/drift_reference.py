"""What later screenings are compared with: a summary of training, logged beside a release."""

from collections.abc import Mapping

import mlflow
import numpy as np
import polars as pl
from numpy.typing import NDArray

from feature_repo.catalogue import list_model_inputs
from feature_repo.stored_views import JOIN_KEY
from flows.datasets.labels import INDEX_DATE
from flows.datasets.rows import Matrix, Probabilities
from flows.datasets.training_set import TrainingSet
from flows.evaluation.fairness import PROTECTED, name_groups
from flows.evaluation.learning import LearntHead
from flows.models.member import FittedMember
from mlruns_config.manifest import ReleaseManifest
from monitoring.drift_null import make_null
from monitoring.drift_reference import (
    MIN_ROWS,
    REFERENCE_FILE,
    SCORE,
    DriftReference,
    make_reference,
)

#: Days before the last index date whose rows are compared with: earlier ones have less history,
#: which no later screening lacks.
REFERENCE_DAYS = 365
#: Fewer people with stored data are no population to compare batches with.
MIN_STORED = 200
#: Data type of a column -> the modality that raises an alarm; None: age.
MODALITIES = {
    None: "person",
    "survey": "questionnaires",
    "wearable": "wearables",
    "emr": "care",
}


def summarise_training(
    training_set: TrainingSet,
    people: pl.DataFrame,
    learnt: LearntHead,
    manifest: ReleaseManifest,
    stored: Matrix,
    seed: int,
) -> DriftReference:
    """Summarise the last year of the rows a release was fitted on, who they are of, and its scores.

    The scores are those that calibrated it, by members that did not know the individuals.
    `stored` is what a batch would read of everyone who consents, float32 [people, columns]:
    batches are compared with it.
    """
    fitted = training_set.split.fitting
    frame = training_set.frame.filter(pl.Series(fitted))
    days = frame[INDEX_DATE].cast(pl.Date).cast(pl.Int32).to_numpy().astype(np.int64)
    recent = days > days.max() - REFERENCE_DAYS
    weights = weigh_columns(learnt.members, manifest)
    scores = learnt.probabilities
    requests = reference_rows(
        training_set.rows.features[fitted][recent],
        scores[recent] if len(scores) == len(recent) else scores,
        weights,
        seed,
        people=frame.filter(pl.Series(recent))[JOIN_KEY].n_unique(),
        days=days[recent],
    )
    groups = share_groups(name_groups(frame, people))
    batches = None
    if len(stored) >= MIN_STORED:
        batches = reference_rows(stored, np.empty(0), weights, seed, people=len(stored))
    return requests.model_copy(update={"groups": groups, "batches": batches})


def reference_rows(
    features: Matrix,
    scores: Probabilities,
    weights: Mapping[str, float],
    seed: int,
    people: int,
    days: NDArray[np.int64] | None = None,
) -> DriftReference:
    """Summarise rows, with the bounds of windows drawn from them.

    Scores that are not of these very rows are summarised and have no bounds.
    """
    inputs = list_model_inputs()
    columns = {column.name: values for column, values in zip(inputs, features.T, strict=True)}
    made = make_reference(columns, scores, weights)
    drawn, summaries = dict(columns), dict(made.columns)
    if len(scores) == len(features):
        drawn[SCORE], summaries[SCORE] = scores, made.score
    return made.model_copy(
        update={
            "people": people,
            "modalities": {column.name: MODALITIES[column.data_type] for column in inputs},
            "null": make_null(drawn, summaries, days, seed),
        }
    )


def share_groups(groups: pl.DataFrame) -> dict[str, dict[str, float]]:
    """Return each group's share of the rows by attribute; one of a few rows is left out."""
    return {
        attribute: {
            str(group): rows / groups.height
            for group, rows in groups[attribute].value_counts().iter_rows()
            if rows >= MIN_ROWS
        }
        for attribute in PROTECTED
    }


def weigh_columns(
    members: Mapping[str, FittedMember], manifest: ReleaseManifest
) -> dict[str, float]:
    """Return what each column weighs in the release, by member weight and share within it.

    The trees' share of a column is its share of their total gain, the regression's that of the
    absolute standardised coefficients. Other members name no columns.
    """
    names = [column.name for column in list_model_inputs()]
    weights = np.zeros(len(names))
    for name, weight in manifest.stacker.coefficients.items():
        shares = members[name].measure_importance()
        if shares is not None and shares.sum() > 0:
            weights += weight * shares / shares.sum()
    return dict(zip(names, weights.tolist(), strict=True))


def log_drift_reference(reference: DriftReference) -> None:
    """Log the summary to the active MLflow run."""
    mlflow.log_text(reference.model_dump_json(indent=1), REFERENCE_FILE)
