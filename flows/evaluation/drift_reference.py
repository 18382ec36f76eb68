"""What later screenings are compared with: a summary of training, logged beside a release."""

from collections.abc import Mapping

import mlflow
import numpy as np
import polars as pl

from feature_repo.catalogue import list_model_inputs
from flows.datasets.training_set import TrainingSet
from flows.evaluation.fairness import PROTECTED, name_groups
from flows.evaluation.learning import LearntHead
from flows.models.member import FittedMember
from mlruns_config.manifest import ReleaseManifest
from monitoring.drift_reference import (
    MIN_ROWS,
    REFERENCE_FILE,
    DriftReference,
    make_reference,
)


def summarise_training(
    training_set: TrainingSet,
    people: pl.DataFrame,
    learnt: LearntHead,
    manifest: ReleaseManifest,
) -> DriftReference:
    """Summarise the rows a release was fitted on, who they are of, and its scores of them.

    The scores are those that calibrated it, by members that did not know the individuals.
    """
    names = [column.name for column in list_model_inputs()]
    fitted = training_set.split.fitting
    return make_reference(
        dict(zip(names, training_set.rows.features[fitted].T, strict=True)),
        learnt.probabilities,
        weigh_columns(learnt.members, manifest),
        share_groups(name_groups(training_set.frame.filter(pl.Series(fitted)), people)),
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
