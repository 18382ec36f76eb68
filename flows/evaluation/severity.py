"""Severity in an evaluation: calibration by severity and missing pattern, and PHQ-9 alone.

Expected over observed is computed for each group: a release may be calibrated on the
whole and overstate the severely ill. Today's PHQ-9 alone is the baseline without any model.
"""

from collections.abc import Mapping

import numpy as np
import polars as pl

from feature_repo.catalogue import list_model_inputs
from flows.datasets.rows import ModelRows, Probabilities
from flows.evaluation.held_out import HeldOut
from flows.evaluation.metrics import Interval, auroc, bootstrap_difference
from flows.models.assembly import predict_release
from flows.models.data_types import blank_data_types
from flows.models.out_of_fold import Predictors
from mlruns_config.manifest import ReleaseManifest
from mlruns_config.missing import list_patterns, name_pattern

#: Name, lowest and highest PHQ-9 total.
SEVERITY_GROUPS = (("0-9", 0, 9), ("10-14", 10, 14), ("15-19", 15, 19), ("20-27", 20, 27))
SEVERITY, PATTERN = "severity", "missing pattern"


def read_totals(held_out: HeldOut) -> Probabilities:
    """Return the PHQ-9 total of each held-out row, NaN where unknown.

    Float64 [rows], in points from 0 to 27.
    """
    column = [model_input.name for model_input in list_model_inputs()].index("phq9_total")
    return held_out.rows.features[:, column].astype(np.float64)


def predict_patterns(
    members: Predictors, manifest: ReleaseManifest, rows: ModelRows
) -> dict[str, Probabilities]:
    """Return the probability of every row without the parts of each missing pattern, by its name.

    Float64 [rows] for each pattern.
    """
    return {
        name_pattern(pattern): predict_release(members, manifest, blank_data_types(rows, pattern))
        for pattern in list_patterns()
    }


def compare_expected(held_out: HeldOut, by_pattern: Mapping[str, Probabilities]) -> pl.DataFrame:
    """Return rows, expected and observed outcomes of each severity group and missing pattern.

    `by_pattern` is what `predict_patterns` returns. Every held-out row is in one severity group;
    a pattern holds all rows, without these parts.
    """
    totals = read_totals(held_out)
    groups = [
        _describe(
            SEVERITY, name, held_out, held_out.probabilities, (totals >= low) & (totals <= high)
        )
        for name, low, high in SEVERITY_GROUPS
    ]
    everyone = np.ones(len(held_out.labels), dtype=bool)
    patterns = [
        _describe(PATTERN, name, held_out, probabilities, everyone)
        for name, probabilities in by_pattern.items()
    ]
    return pl.DataFrame([*groups, *patterns])


def _describe(
    kind: str, name: str, held_out: HeldOut, probabilities: Probabilities, chosen: np.ndarray
) -> dict[str, str | int | float]:
    expected, observed = float(probabilities[chosen].sum()), float(held_out.labels[chosen].sum())
    return {
        "by": kind,
        "group": name,
        "rows": int(chosen.sum()),
        "expected": expected,
        "observed": observed,
        "observed_over_expected": observed / expected if expected else float("nan"),
    }


def find_worst_ratio(table: pl.DataFrame) -> dict[str, float]:
    """Return the observed/expected of severity groups and of patterns that is farthest from 1."""
    worst = {}
    for kind, name in ((SEVERITY, "severity"), (PATTERN, "pattern")):
        ratios = table.filter(pl.col("by") == kind)["observed_over_expected"].to_numpy()
        finite = ratios[np.isfinite(ratios) & (ratios > 0)]
        if finite.size:
            farthest = int(np.argmax(np.abs(np.log(finite))))
            worst[f"worst_{name}_observed_over_expected"] = float(finite[farthest])
    return worst


def compare_with_phq9_alone(held_out: HeldOut) -> tuple[dict[str, float], dict[str, Interval]]:
    """Return the AUROC of today's PHQ-9 alone and the release's gain over it, with its interval.

    A row without a PHQ-9 counts as the mean of the others: a rule of thumb has nothing better.
    """
    totals = read_totals(held_out)
    mean_total = float(np.nanmean(totals)) if np.isfinite(totals).any() else 0.0
    alone = np.nan_to_num(totals, nan=mean_total) / 27
    gain = auroc(held_out.labels, held_out.probabilities) - auroc(held_out.labels, alone)
    metrics = {"auroc_phq9_alone": auroc(held_out.labels, alone), "auroc_gain_over_phq9": gain}
    interval = bootstrap_difference(
        auroc, held_out.labels, held_out.probabilities, alone, held_out.rounds
    )
    return metrics, {"auroc_gain_over_phq9": interval}
