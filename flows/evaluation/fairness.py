"""Metrics by subgroup: sex, age band, ethnicity, their pairs, and what data are missing."""

from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
from fairlearn.metrics import MetricFrame
from numpy.typing import NDArray

from feature_repo.consent_terms import DATA_TYPES
from flows.datasets.rows import Labels, Probabilities
from flows.evaluation.held_out import HeldOut
from flows.evaluation.metrics import auprc, auroc, bootstrap_interval, measure_ece
from flows.models.data_types import find_missing
from mlruns_config.missing import name_pattern

#: Smaller groups, or groups with fewer outcomes, are not judged: with 15 outcomes the recall of
#: two equal groups differs by 0.3 now and then, with 40 by 0.15. They could point at a person too.
MIN_GROUP = 200
MIN_OUTCOMES = 40
#: What a release must be fair by, alone and in pairs.
PROTECTED = ("sex", "age_band", "ethnicity")
MISSING = "missing_data"
#: How the name of a pair is put together.
AND = " x "
#: Rounds of the interval of a group's AUROC: there are dozens of groups.
GROUP_ROUNDS = 100


def describe_groups(held_out: HeldOut, people: pl.DataFrame) -> pl.DataFrame:
    """Return PROTECTED and MISSING of each held-out row, "unknown" where not stated."""
    return name_groups(held_out.frame, people).with_columns(
        pl.Series(MISSING, name_missing_data(held_out))
    )


def name_groups(rows: pl.DataFrame, people: pl.DataFrame) -> pl.DataFrame:
    """Return PROTECTED of each row of (anonymized_id, age), "unknown" where not stated."""
    joined = rows.select("anonymized_id", "age").join(
        people.select("anonymized_id", "sex", "ethnicity"),
        on="anonymized_id",
        how="left",
        maintain_order="left",
    )
    return joined.select(
        pl.col("sex").fill_null("unknown"),
        name_age_band(pl.col("age")).alias("age_band"),
        pl.col("ethnicity").fill_null("unknown"),
    )


def name_missing_data(held_out: HeldOut) -> list[str]:
    """Return the name of the set of data types that each row lacks."""
    kinds = np.array(DATA_TYPES)
    return [name_pattern(kinds[lacking].tolist()) for lacking in find_missing(held_out.rows)]


def name_age_band(age: pl.Expr) -> pl.Expr:
    """Return the age band as text; a missing age is "unknown"."""
    return (
        pl.when(age.is_null() | age.is_nan())
        .then(pl.lit("unknown"))
        .when(age < 30)
        .then(pl.lit("under 30"))
        .when(age < 45)
        .then(pl.lit("30-44"))
        .when(age < 60)
        .then(pl.lit("45-59"))
        .otherwise(pl.lit("60 and over"))
    )


def pair_groups(groups: pl.DataFrame) -> pl.DataFrame:
    """Return the attributes with every pair of those that are PROTECTED beside them."""
    named = [name for name in PROTECTED if name in groups.columns]
    pairs = [
        pl.concat_str(pair, separator=", ").alias(AND.join(pair)) for pair in combinations(named, 2)
    ]
    return groups.with_columns(pairs)


def compare_groups(groups: pl.DataFrame, held_out: HeldOut, threshold: float) -> pl.DataFrame:
    """Return one row per group that is large enough, for every attribute and pair.

    `recall` is the share of individuals with the outcome at or above `threshold`, `ppv` the share
    of those at or above it who have the outcome, `flagged` their share of all.
    """
    tables = [
        _judge_attribute(name, values.to_numpy(), held_out, threshold)
        for name, values in pair_groups(groups).to_dict().items()
    ]
    return pl.concat([table for table in tables if not table.is_empty()] or [pl.DataFrame()])


def _judge_attribute(
    attribute: str, values: NDArray[Any], held_out: HeldOut, threshold: float
) -> pl.DataFrame:
    large = [value for value in np.unique(values) if _is_large(held_out.labels[values == value])]
    inside = np.isin(values, large)
    if not large:
        return pl.DataFrame()
    frame = MetricFrame(
        metrics=_list_metrics(threshold),
        y_true=held_out.labels[inside],
        y_pred=held_out.probabilities[inside],
        sensitive_features=values[inside].astype(str),
    )
    by_group = frame.by_group
    table = pl.DataFrame(
        {"attribute": attribute, "group": by_group.index.astype(str).to_list()}
        | {name: by_group[name].astype(float).to_numpy() for name in by_group.columns}
    )
    bounds = [_bound_auroc(values == value, held_out) for value in table["group"]]
    return table.with_columns(
        pl.col("rows").cast(pl.Int64),
        pl.Series("auroc_low", [low for low, _ in bounds]),
        pl.Series("auroc_high", [high for _, high in bounds]),
    )


def _is_large(labels: Labels) -> bool:
    return len(labels) >= MIN_GROUP and int(labels.sum()) >= MIN_OUTCOMES


def _list_metrics(threshold: float) -> dict[str, Callable[..., float]]:
    return {
        "rows": lambda labels, _: float(len(labels)),
        "prevalence": lambda labels, _: float(labels.mean()),
        "auroc": auroc,
        "auprc": auprc,
        "ece": measure_ece,
        "recall": partial(_measure_recall, threshold=threshold),
        "ppv": partial(_measure_ppv, threshold=threshold),
        "flagged": lambda _, probabilities: float((probabilities >= threshold).mean()),
    }


def _measure_recall(labels: Labels, probabilities: Probabilities, threshold: float) -> float:
    return float((probabilities[labels] >= threshold).mean())


def _measure_ppv(labels: Labels, probabilities: Probabilities, threshold: float) -> float:
    flagged = probabilities >= threshold
    return float(labels[flagged].mean()) if flagged.any() else 0.0


def _bound_auroc(inside: NDArray[np.bool_], held_out: HeldOut) -> tuple[float, float]:
    rounds = [rows[inside[rows]] for rows in held_out.rounds[:GROUP_ROUNDS]]
    return bootstrap_interval(auroc, held_out.labels, held_out.probabilities, rounds)


def find_worst(table: pl.DataFrame) -> dict[str, float]:
    """Return the worst of any group: AUROC, gap in recall.

    By one protected attribute, and with the ending `_pairs` by two.
    """
    if table.is_empty():
        return {}
    single = table.filter(pl.col("attribute").is_in(PROTECTED))
    pairs = table.filter(pl.col("attribute").str.contains(AND, literal=True))
    return _find_worst(single, "") | _find_worst(pairs, "_pairs")


def _find_worst(table: pl.DataFrame, ending: str) -> dict[str, float]:
    if table.is_empty():
        return {}
    gaps = table.group_by("attribute").agg(pl.col("recall").max() - pl.col("recall").min())
    return {
        f"worst_group_auroc{ending}": float(np.min(table["auroc"].to_numpy())),
        f"recall_gap{ending}": float(np.max(gaps["recall"].to_numpy())),
    }
