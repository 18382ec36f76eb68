"""A registered release on labelled rows that it was not trained on."""

import numpy as np
import polars as pl

from feature_repo.stored_views import JOIN_KEY
from flows.datasets.labels import LABEL, WORSENED
from flows.datasets.rows import number_individuals
from flows.datasets.training_set import find_input
from flows.datasets.unseen import UnseenSet
from flows.evaluation import plots
from flows.evaluation.held_out import HeldOut
from flows.evaluation.measures import measure_scored
from flows.evaluation.metrics import draw_bootstrap_rows
from flows.evaluation.report import Evaluation, tabulate_curves
from flows.evaluation.severity import compare_expected, find_worst_ratio, predict_patterns
from flows.evaluation.worsening import describe_worsening
from flows.models.families import BASELINE
from flows.models.interval import predict_head
from flows.models.registered import RegisteredRelease

#: Fewer outcomes, or rows without, make a validation imprecise (Collins 2016, doi
#: 10.1002/sim.6787): it is done, and says so.
PRECISE_FROM = 100


def score_unseen(unseen: UnseenSet, release: RegisteredRelease, seed: int) -> HeldOut:
    """Score every row with a release as it answers."""
    baseline = release.members.get(BASELINE)
    return HeldOut(
        frame=unseen.frame,
        rows=unseen.rows,
        labels=unseen.frame[LABEL].to_numpy(),
        probabilities=release.predict(unseen.rows),
        by_member={} if baseline is None else {BASELINE: baseline.predict(unseen.rows)},
        rounds=draw_bootstrap_rows(number_individuals(unseen.frame[JOIN_KEY]), seed),
    )


def evaluate_unseen(scored: HeldOut, unseen: UnseenSet, release: RegisteredRelease) -> Evaluation:
    """Return discrimination, calibration, usefulness and groups, with intervals by individual."""
    measures = measure_scored(scored, unseen.people, release.manifest)
    metrics = measures.metrics | {
        "rows": float(len(scored.labels)),
        "outcomes": float(scored.labels.sum()),
        "individuals": float(scored.frame[JOIN_KEY].n_unique()),
    }
    by_pattern = predict_patterns(release.members, release.manifest, scored.rows)
    calibration = compare_expected(scored, by_pattern)
    metrics |= find_worst_ratio(calibration) | measure_second_outcome(unseen, release)
    tables = measures.tables | {"calibration": calibration} | tabulate_curves(scored)
    figures = plots.draw_all(
        scored.labels, scored.probabilities, scored.by_member, release.manifest
    )
    figures |= plots.draw_tables(tables, metrics)
    return Evaluation(metrics, measures.intervals, tables, figures)


def measure_second_outcome(unseen: UnseenSet, release: RegisteredRelease) -> dict[str, float]:
    """Return the metrics of `worsening` among those not severely ill; empty without it."""
    head = release.manifest.worsening
    if head is None:
        return {}
    totals = unseen.rows.features[:, find_input("phq9_total")].astype(np.float64)
    is_labelled = unseen.frame[WORSENED].is_not_null().to_numpy()
    chosen = is_labelled & ~(totals >= head.severe_from)
    if not chosen.any():
        return {}
    return describe_worsening(
        unseen.frame[WORSENED].fill_null(False).to_numpy()[chosen],
        predict_head(release.members, head, unseen.rows.select(chosen)),
        totals[chosen],
        unseen.frame[JOIN_KEY].filter(pl.Series(chosen)),
        head,
    )
