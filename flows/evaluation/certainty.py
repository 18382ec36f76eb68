"""Coverage of a release's intervals and error of its abstentions, on people it has not seen."""

import numpy as np
import polars as pl
from scipy.stats import spearmanr

from flows.datasets.rows import Probabilities
from flows.evaluation.held_out import HeldOut
from flows.evaluation.releasing import LearntRelease
from flows.evaluation.severity import SEVERITY_GROUPS, read_totals
from flows.models.data_types import find_missing
from flows.models.interval import (
    COVERAGE,
    Strayings,
    bound_rows,
    measure_coverage,
    measure_straying,
    predict_rows,
)
from flows.models.stacking import to_log_odds
from mlruns_config.manifest import ReleaseManifest
from serving.scoring.estimate import BandEdges, map_to_score, to_probability
from serving.scoring.uncertainty import Bounds

#: Smaller severity groups are reported and not assessed.
MIN_ROWS = 100


def measure_certainty(
    held_out: HeldOut, learnt: LearntRelease
) -> tuple[dict[str, float], pl.DataFrame]:
    """Return metrics, and the coverage of the interval by severity; empty without an interval.

    `interval_coverage_miss` is the largest distance from nominal of any severity group of
    MIN_ROWS or more, `confidence_spearman` the rank correlation of confidence and probability,
    `error_of_abstained` and `error_of_others` mean Brier scores.
    """
    interval, halvings = learnt.manifest.uncertainty, learnt.priority.halvings
    if interval is None or halvings is None:
        return {}, pl.DataFrame()
    priority, head = learnt.priority, learnt.manifest.priority
    bounds = bound_rows(head, predict_rows(priority.members, priority.refits, head, held_out.rows))
    abstained = find_abstained(held_out, learnt, bounds)
    errors = (held_out.probabilities - held_out.labels) ** 2
    confidence = [interval.measure_confidence(width) for width in bounds.width]
    metrics = {
        "interval_width": float((bounds.high - bounds.low).mean()),
        "confidence_spearman": float(spearmanr(confidence, held_out.probabilities).statistic),
        "abstained_share": float(abstained.mean()),
    }
    for name, chosen in (("abstained", abstained), ("others", ~abstained)):
        if chosen.any():
            metrics[f"error_of_{name}"] = float(errors[chosen].mean())
    straying = measure_straying(halvings, head, held_out.rows)
    metrics["instability"] = measure_instability(held_out.probabilities, straying)
    table = compare_coverage(held_out, bounds, straying)
    return metrics | summarise_coverage(table), table


def measure_instability(probabilities: Probabilities, straying: Strayings) -> float:
    """Return the mean distance of an estimate from that of a release learnt from other people.

    The mean absolute prediction error of Riley & Collins 2023 (doi 10.1002/bimj.202200302).
    """
    other = to_probability(to_log_odds(probabilities) + straying)
    return float(np.abs(other - probabilities).mean())


def compare_coverage(held_out: HeldOut, bounds: Bounds, straying: Strayings) -> pl.DataFrame:
    """Return rows, coverage and mean width of the interval overall and by severity.

    Groups without a row are left out: without a PHQ-9 no severity is known.
    """
    totals = read_totals(held_out)
    groups = {"all": np.ones(len(totals), bool)} | {
        name: (totals >= low) & (totals <= high) for name, low, high in SEVERITY_GROUPS
    }
    rows = []
    for name, chosen in groups.items():
        if not chosen.any():
            continue
        part = Bounds(*(getattr(bounds, field)[chosen] for field in Bounds.__dataclass_fields__))
        covered = measure_coverage(held_out.probabilities[chosen], part, straying[:, chosen])
        width = float((part.high - part.low).mean())
        count = int(chosen.sum())
        rows.append({"severity": name, "rows": count, "coverage": covered, "width": width})
    return pl.DataFrame(rows)


def summarise_coverage(table: pl.DataFrame) -> dict[str, float]:
    """Return the overall coverage and the largest distance from nominal of any assessed group."""
    judged = table.filter(pl.col("rows") >= MIN_ROWS) if table["rows"][0] >= MIN_ROWS else table
    misses = np.abs(judged["coverage"].to_numpy() - COVERAGE)
    return {
        "interval_coverage": float(table["coverage"][0]),
        "interval_coverage_miss": float(misses.max()),
    }


def find_abstained(held_out: HeldOut, learnt: LearntRelease, bounds: Bounds) -> np.ndarray:
    """Return which rows the release leaves to a person, as serving does by the default bands.

    Bool [rows].
    """
    manifest = learnt.manifest
    abstained = is_queued(manifest, bounds.contested) & ~is_queued(manifest, held_out.probabilities)
    abstained |= find_missing(held_out.rows).all(axis=1)
    if learnt.forest is not None:
        abstained |= learnt.forest.measure(held_out.rows) > learnt.forest.above
    return np.asarray(abstained)


def is_queued(manifest: ReleaseManifest, probabilities: Probabilities) -> np.ndarray:
    """Return which probabilities give a score above the default `moderate` band.

    Probabilities are float64 [rows], the answer bool [rows].
    """
    scores = [
        map_to_score(manifest.score_map, probability) for probability in probabilities.tolist()
    ]
    return np.array(scores) > BandEdges().moderate
