"""The interval about one person: refits that rise with symptoms, and a margin that holds."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from flows.models import lightgbm, logistic_regression
from flows.models.interval import (
    COVERAGE,
    HALVINGS,
    HIGH_RANK,
    LOW_RANK,
    Halves,
    bound_rows,
    calibrate_rows,
    fit_halves,
    make_interval,
    measure_coverage,
    measure_margin,
    measure_straying,
    predict_rows,
)
from flows.models.refits import REFITS, draw_counts
from mlruns_config.heads import Calibration, Head, Stacker
from mlruns_config.uncertainty import RefitInterval
from serving.scoring.estimate import to_log_odds
from serving.scoring.uncertainty import Bounds, find_bounds
from tests.fixtures.drawn_rows import draw_fitting_data, draw_rows
from tests.fixtures.manifests import make_refit_interval

IDENTITY = Calibration(kind="identity", inputs=[0, 1], outputs=[0, 1])
quick = settings(max_examples=60, deadline=None)
log_odds = st.floats(-8, 8)


def make_head(interval: RefitInterval | None = None, **weights: float) -> Head:
    return Head(
        outcome="adverse_course_v1",
        stacker=Stacker(intercept=0, coefficients=weights or {"lightgbm": 1.0}),
        calibration=IDENTITY,
        uncertainty=interval,
    )


def bound(refits: list[float], own: float, margin: float = 0.0) -> Bounds:
    interval = make_refit_interval(len(refits), margin)
    probability = 1 / (1 + np.exp(-np.array([own])))
    return find_bounds(
        make_head(interval),
        interval,
        probability,
        {"lightgbm": probability},
        {"lightgbm": np.array([refits])},
        "none",
    )


@pytest.mark.parametrize(
    "changes",
    [{"high_rank": 4}, {"queue_rank": 3, "high_rank": 2}, {"low_rank": 3}, {"widths": [1, 0]}],
)
def test_ranks_and_widths_out_of_order_are_refused(changes):
    with pytest.raises(ValidationError):
        RefitInterval.model_validate(make_refit_interval().model_dump() | changes)


@quick
@given(st.lists(log_odds, min_size=4, max_size=20), log_odds, st.floats(-1, 1))
def test_the_interval_holds_the_estimate_and_stays_between_0_and_1(refits, own, margin):
    found = bound(refits, own, margin)
    probability = 1 / (1 + np.exp(-own))

    assert 0 <= found.low[0] <= probability <= found.high[0] <= 1
    assert probability <= found.contested[0]


@quick
@given(
    st.lists(st.tuples(log_odds, st.floats(0, 4)), min_size=4, max_size=20),
    log_odds,
    st.floats(0, 4),
)
def test_where_every_refit_rises_no_end_of_the_interval_falls(steps, own, rise):
    before = bound([value for value, _ in steps], own, 0.3)
    after = bound([value + more for value, more in steps], own + rise, 0.3)

    for name in ("low", "high", "contested"):
        assert getattr(after, name)[0] >= getattr(before, name)[0] - 1e-12, name


def test_confidence_is_the_share_of_people_whose_interval_is_at_least_as_wide():
    interval = make_refit_interval()

    assert [interval.measure_confidence(width) for width in (0, 0.5, 1.75, 9)] == [
        1,
        0.75,
        0.125,
        0,
    ]


def test_a_member_without_refits_says_the_same_in_all_of_them():
    interval = make_refit_interval()
    head = make_head(interval, lightgbm=1.0, tft=1.0)
    said = {"lightgbm": np.array([0.5]), "tft": np.array([0.8])}
    found = find_bounds(
        head, interval, np.array([0.8]), said, {"lightgbm": np.array([[-1.0, 0, 0, 1]])}, "none"
    )

    assert found.width[0] == pytest.approx(2)
    assert to_log_odds(found.low)[0] == pytest.approx(to_log_odds(np.array([0.8]))[0] - 1)


def test_each_individual_counts_as_often_with_all_their_rows():
    people = pl.Series([f"person {n // 3}" for n in range(300)])
    counts = draw_counts(people, 1)

    assert counts.shape == (REFITS, 300)
    assert (counts.reshape(REFITS, 100, 3) == counts[:, ::3, None]).all()
    assert (counts[:, ::3].sum(axis=1) == 100).all()
    assert len(np.unique(counts, axis=0)) == REFITS


@pytest.fixture(scope="module")
def learnt():
    """Two members with their refits and halves, on drawn rows of 400 people."""
    data = draw_fitting_data(1600)
    people = pl.Series([f"person {n // 4}" for n in range(1600)])
    families = {"logistic_regression": logistic_regression, "lightgbm": lightgbm}
    members = {name: family.fit(data) for name, family in families.items()}
    counts = draw_counts(people, 7)
    refits = {n: family.refit(members[n], data, counts) for n, family in families.items()}
    fits = {name: family.fit for name, family in families.items()}
    halvings = fit_halves(fits, dict.fromkeys(fits) | {name: name for name in fits}, data, people)
    return members, refits, halvings


HEAD = make_head(None, logistic_regression=0.5, lightgbm=0.5)


def test_the_margin_makes_the_interval_hold_its_share_of_other_rows(learnt):
    members, refits, halvings = learnt
    trial = HEAD.model_copy(update={"uncertainty": make_interval(0.0)})
    rows, others = draw_rows(600, 21), draw_rows(600, 22)
    straying = measure_straying(halvings, trial, rows)
    outputs = predict_rows(members, refits, trial, rows)
    margin = measure_margin(calibrate_rows(trial, outputs), bound_rows(trial, outputs), straying)
    head = HEAD.model_copy(update={"uncertainty": make_interval(margin)})
    outputs = predict_rows(members, refits, head, others)
    held = measure_coverage(
        calibrate_rows(head, outputs),
        bound_rows(head, outputs),
        measure_straying(halvings, head, others),
    )

    assert held == pytest.approx(COVERAGE, abs=0.05)


def test_every_division_of_the_people_strays_in_its_own_way(learnt):
    _, _, halvings = learnt
    straying = measure_straying(halvings, HEAD, draw_rows(200, 3))

    assert straying.shape == (HALVINGS, 200)
    assert (np.corrcoef(straying) - np.eye(HALVINGS)).max() < 0.95


def test_coverage_is_the_mean_over_the_divisions():
    ours, nothing = np.array([0.5, 0.5]), np.zeros(2)
    bounds = Bounds(ours - 0.1, ours + 0.1, ours, nothing)

    assert measure_coverage(ours, bounds, np.array([[0.0, 0.1], [0.0, 3.0]])) == 0.75


def test_halves_that_agree_do_not_stray(learnt):
    members, _, _ = learnt
    assert not Halves(members, members).measure_straying(HEAD, draw_rows(20, 1)).any()


def test_the_refits_differ_and_lie_about_the_member(learnt):
    members, refits, _ = learnt
    rows = draw_rows(300, 23)
    for name, member in members.items():
        said = np.sort(refits[name].predict_log_odds(rows), axis=1)
        own = to_log_odds(member.predict(rows))

        assert (said[:, HIGH_RANK] > said[:, LOW_RANK]).mean() > 0.95, name
        assert ((own >= said[:, 0]) & (own <= said[:, -1])).mean() > 0.8, name
