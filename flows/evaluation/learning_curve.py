"""What more people would bring: the cheap members, fitted on parts of the individuals."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from feature_repo.individual import JOIN_KEY
from flows.datasets.training_set import TrainingSet
from flows.evaluation.learning import make_fitting_data
from flows.evaluation.metrics import auroc
from flows.models.families import REFITTED_FAMILIES
from flows.models.member import FitMember

SHARES = (0.25, 0.5, 1.0)


def measure_learning_curve(
    families: Mapping[str, FitMember], training_set: TrainingSet, seed: int
) -> pl.DataFrame:
    """Return (share, individuals, then one AUROC on the held-out rows for each cheap member)."""
    data = make_fitting_data(training_set, seed)
    held_out = training_set.split.held_out
    rows, labels = training_set.rows.select(held_out), training_set.labels[held_out]
    names = training_set.frame[JOIN_KEY].filter(pl.Series(training_set.split.fitting)).to_numpy()
    people = np.random.default_rng(seed).permutation(np.unique(names))
    curve = []
    for share in SHARES:
        chosen = np.isin(names, people[: max(1, round(share * len(people)))])
        part = data.select(chosen)
        if part.labels.all() or not part.labels.any():
            continue
        areas = {
            f"AUROC {name}": auroc(labels, fit(part).predict(rows))
            for name, fit in families.items()
            if name in REFITTED_FAMILIES
        }
        curve.append({"share": share, "individuals": int(share * len(people)), **areas})
    return pl.DataFrame(curve)
