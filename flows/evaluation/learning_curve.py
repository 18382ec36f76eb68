"""What more people would bring: the cheap members, fitted on parts of the individuals."""

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from feature_repo.stored_views import JOIN_KEY
from flows.datasets.rows import Labels
from flows.datasets.training_set import TrainingSet
from flows.evaluation.learning import make_fitting_data
from flows.evaluation.metrics import auroc
from flows.models.families import REFITTED_FAMILIES
from flows.models.member import FitMember
from flows.models.side_by_side import fit_in_threads

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
    parts = choose_parts(people, names, data.labels)
    fitted = {
        name: fit_in_threads(fit, data, parts.values())
        for name, fit in families.items()
        if name in REFITTED_FAMILIES
    }
    areas = {
        f"AUROC {name}": [auroc(labels, member.predict(rows)) for member in members]
        for name, members in fitted.items()
    }
    individuals = [int(share * len(people)) for share in parts]
    return pl.DataFrame({"share": list(parts), "individuals": individuals, **areas})


def choose_parts(
    people: NDArray[np.str_], names: NDArray[np.str_], labels: Labels
) -> dict[float, NDArray[np.bool_]]:
    """Return by share the rows of so many of the people, where these have both outcomes."""
    counts = {share: max(1, round(share * len(people))) for share in SHARES}
    parts = {share: np.isin(names, people[:count]) for share, count in counts.items()}
    return {share: part for share, part in parts.items() if 0 < labels[part].mean() < 1}
