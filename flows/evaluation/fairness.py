"""Metrics by subgroup: sex, age band, ethnicity."""

import numpy as np
import polars as pl

from flows.evaluation.metrics import compute_metrics
from flows.models.member import Labels, Probabilities

#: Smaller groups, or groups with fewer outcomes, are not judged: with 15 outcomes the recall of
#: two equal groups differs by 0.3 now and then, with 40 by 0.15. They could point at a person too.
SMALLEST_GROUP = 200
FEWEST_OUTCOMES = 40


def describe_groups(held_out: pl.DataFrame, people: pl.DataFrame) -> pl.DataFrame:
    """Return sex, age band and ethnicity of each held-out row, "unknown" where not stated."""
    joined = held_out.select("anonymized_id", "age").join(
        people.select("anonymized_id", "sex", "ethnicity"), on="anonymized_id", how="left"
    )
    return joined.select(
        pl.col("sex").fill_null("unknown"),
        name_age_band(pl.col("age")).alias("age_band"),
        pl.col("ethnicity").fill_null("unknown"),
    )


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


def compare_groups(
    groups: pl.DataFrame, labels: Labels, probabilities: Probabilities, threshold: float
) -> pl.DataFrame:
    """Return one row per group large enough to be judged.

    `recall` is the share of deteriorating individuals at or above `threshold`.
    """
    rows = []
    for attribute in groups.columns:
        for value in sorted(groups[attribute].unique()):
            inside = (groups[attribute] == value).to_numpy()
            outcomes = labels[inside]
            if len(outcomes) < SMALLEST_GROUP or outcomes.sum() < FEWEST_OUTCOMES:
                continue
            found = compute_metrics(outcomes, probabilities[inside])
            recall = float((probabilities[inside & labels] >= threshold).mean())
            rows.append(
                {"attribute": attribute, "group": value, "rows": len(outcomes), "recall": recall}
                | {name: found[name] for name in ("auroc", "auprc", "ece", "prevalence")}
            )
    return pl.DataFrame(rows)


def find_worst(table: pl.DataFrame) -> dict[str, float]:
    """Return the lowest AUROC of any group and the widest gap in recall of any attribute."""
    if table.is_empty():
        return {}
    gaps = table.group_by("attribute").agg(pl.col("recall").max() - pl.col("recall").min())
    return {
        "worst_group_auroc": float(np.min(table["auroc"].to_numpy())),
        "recall_gap": float(np.max(gaps["recall"].to_numpy())),
    }
