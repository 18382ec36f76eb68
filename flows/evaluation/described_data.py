"""The data of a release as a reader asks for them: parts, baseline, outcome, what was left out."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from feature_repo.catalogue import list_model_inputs
from feature_repo.consent_terms import DATA_TYPES
from feature_repo.outcomes import PHQ9_SEVERE_COURSE
from feature_repo.stored_views import JOIN_KEY
from flows.datasets.labels import INDEX_DATE, LABEL, WORSENED
from flows.datasets.training_set import TrainingSet
from flows.evaluation.fairness import MIN_GROUP, PROTECTED, name_groups
from flows.evaluation.severity import SEVERITY_GROUPS

PARTS = ("fitting", "stopping", "calibration", "held_out")
Mask = NDArray[np.bool_]


def describe_parts(training_set: TrainingSet) -> pl.DataFrame:
    """Return individuals, index dates, outcomes and period of each part of the split.

    `not used` are index dates of fitting people that lie too late, or of held-out people that lie
    too early, to be used in an evaluation; the deployed release is fitted on them too.
    """
    used = np.zeros(len(training_set.labels), dtype=bool)
    rows = []
    for name in PARTS:
        mask = getattr(training_set.split, name)
        used |= mask
        rows.append(_describe_part(name.replace("_", " "), training_set, mask))
    return pl.DataFrame([*rows, _describe_part("not used", training_set, ~used)])


def _describe_part(name: str, training_set: TrainingSet, mask: Mask) -> dict[str, Any]:
    frame = training_set.frame.filter(pl.Series(mask))
    dates = frame[INDEX_DATE].cast(pl.Date)
    return {
        "part": name,
        "individuals": frame[JOIN_KEY].n_unique(),
        "index dates": frame.height,
        "with the outcome": int(training_set.labels[mask].sum()),
        "first": str(dates.min() or "-"),
        "last": str(dates.max() or "-"),
    }


def describe_baseline(training_set: TrainingSet, people: pl.DataFrame) -> pl.DataFrame:
    """Return what people are like at their first index date of a part: learnt from, held out.

    A group of fewer than MIN_GROUP people in all is counted among "other or few".
    """
    split = training_set.split
    learnt = split.fitting | split.stopping | split.calibration
    parts = {"learnt from": learnt, "held out": split.held_out}
    described = {name: _describe_people(training_set, people, mask) for name, mask in parts.items()}
    lines = list(described["learnt from"])
    return pl.DataFrame(
        [
            {"characteristic": line, **{name: values[line] for name, values in described.items()}}
            for line in lines
        ]
    )


def _describe_people(training_set: TrainingSet, people: pl.DataFrame, mask: Mask) -> dict[str, str]:
    rows = find_first_rows(training_set, mask)
    frame, features = training_set.frame[rows], training_set.rows.features[rows]
    totals = training_set.read_phq9_totals()[rows]
    told = {
        "individuals": f"{len(rows):,}",
        "age, mean (sd)": _describe_numbers(frame["age"].to_numpy().astype(np.float64)),
        "PHQ-9, mean (sd)": _describe_numbers(totals),
    }
    for name, low, high in SEVERITY_GROUPS:
        told[f"PHQ-9 {name}"] = _describe_share((totals >= low) & (totals <= high))
    told["PHQ-9 unknown"] = _describe_share(np.isnan(totals))
    for kind in DATA_TYPES:
        columns = [n for n, column in enumerate(list_model_inputs()) if column.data_type == kind]
        has_data = np.asarray(np.isfinite(features[:, columns]).any(axis=1))
        told[f"with {kind} data"] = _describe_share(has_data)
    groups = name_groups(frame, people)
    for attribute, names in _list_large_groups(training_set, people).items():
        for name in names:
            told[f"{attribute}: {name}"] = _describe_share((groups[attribute] == name).to_numpy())
        others = ~groups[attribute].is_in(names).to_numpy()
        told[f"{attribute}: other or few"] = _describe_share(others)
    return told


def find_first_rows(training_set: TrainingSet, mask: Mask) -> NDArray[np.int64]:
    """Return the row of each individual's first index date among the chosen ones."""
    numbered = training_set.frame.select(JOIN_KEY, INDEX_DATE).with_row_index("row")
    ordered = numbered.filter(pl.Series(mask)).sort(INDEX_DATE, maintain_order=True)
    first = ordered.unique(JOIN_KEY, keep="first", maintain_order=True)
    return first["row"].to_numpy().astype(np.int64)


def _list_large_groups(training_set: TrainingSet, people: pl.DataFrame) -> dict[str, list[str]]:
    everyone = find_first_rows(training_set, np.ones(len(training_set.labels), dtype=bool))
    groups = name_groups(training_set.frame[everyone], people)
    large_groups = {}
    for attribute in PROTECTED:
        counts = groups[attribute].value_counts()
        large = counts.filter(pl.col("count") >= MIN_GROUP)[attribute]
        large_groups[attribute] = sorted(large.to_list())
    return large_groups


def _describe_numbers(values: NDArray[np.float64]) -> str:
    finite = values[np.isfinite(values)]
    return f"{finite.mean():.1f} ({finite.std():.1f})" if finite.size else "-"


def _describe_share(mask: Mask) -> str:
    return f"{mask.mean():.0%}" if mask.size else "-"


def describe_outcome(training_set: TrainingSet) -> pl.DataFrame:
    """Return what the outcome is made of among all labelled index dates."""
    frame, totals = training_set.frame, training_set.read_phq9_totals()
    label, worsened = (frame[name].fill_null(False).to_numpy() for name in (LABEL, WORSENED))
    severe_now = label & (totals >= PHQ9_SEVERE_COURSE)
    kinds = {
        "with the outcome": label,
        "of these: a marked rise or acute psychiatric care": label & worsened,
        "of these: only a PHQ-9 of 15 or more": label & ~worsened,
        "of these: PHQ-9 of 15 or more at the index date already": severe_now,
        "without the outcome": ~label,
    }
    return pl.DataFrame(
        [
            {
                "index dates": name,
                "number": int(mask.sum()),
                "individuals": frame.filter(pl.Series(mask))[JOIN_KEY].n_unique(),
            }
            for name, mask in kinds.items()
        ]
    )


def describe_exclusions(training_set: TrainingSet) -> pl.DataFrame:
    """Return how many index dates, or outcomes, were not used, by reason."""
    counts: Mapping[str, int] = training_set.excluded
    return pl.DataFrame(
        {"left out": list(counts), "number": list(counts.values())},
        schema={"left out": pl.String, "number": pl.Int64},
    )
