"""The baseline: the same in closed form, as graph and in scikit-learn."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logit

from flows.models.folded_regression import FoldedRegression
from flows.models.logistic_regression import design, fit
from flows.models.member import (
    ROWS_PER_PREDICTION,
    ParityError,
    check_parity,
    open_graph,
    score_graph,
)
from flows.models.monotone import MONOTONE_COLUMNS
from flows.models.ridge import fit_ridge
from serving.scoring.explainers import LinearExplainer, LinearTerms
from tests.fixtures.drawn_rows import NAMES, draw_fitting_data, draw_rows


@pytest.fixture(scope="module")
def data():
    return draw_fitting_data()


@pytest.fixture(scope="module")
def fitted(data) -> FoldedRegression:
    return fit(data)


def test_a_graph_that_says_something_else_is_refused(fitted):
    other = replace(fitted, intercept=fitted.intercept + 0.01)
    with pytest.raises(ParityError, match=r"differ by .* on 1000 rows"):
        check_parity(fitted, other.export_graph(), draw_rows(1000, 9))


def test_the_graph_says_the_same_of_two_thousand_rows_with_gaps(fitted):
    rows = draw_rows(2000, 9)
    rows.features[:5] = np.nan
    rows.features[5:10] = 1e30
    rows.features[10:15] = -1e30

    assert np.isnan(rows.features).any(axis=1).sum() > 1000
    assert check_parity(fitted, fitted.export_graph(), rows) < 1e-6


def test_a_score_bends_between_its_cut_offs(data):
    total = np.nan_to_num(data.rows.features[:, NAMES.index("phq9_total")], nan=8.0)
    bent = replace(data, labels=total >= 15)
    column = NAMES.index("phq9_total")
    steepest = max(
        (ramp for ramp in fit(bent).ramps if ramp.column == column),
        key=lambda ramp: ramp.coefficient,
    )

    assert steepest.low in (10, 15)


def test_a_longer_time_since_care_than_any_seen_weighs_no_more_than_a_year(data):
    column = NAMES.index("days_since_acute_psychiatric")
    features = data.rows.features.copy()
    features[:, column] = np.nan
    features[:60, column] = np.linspace(1, 59, 60)
    short = replace(data.rows, features=features)
    labels = data.labels.copy()
    labels[:60] = np.arange(60) < 30
    trained = fit(replace(data, rows=short, labels=labels))
    row = data.rows.select(np.array([100]))
    log_odds = {}
    for days in (1, 59, 365, 900):
        row.features[:, column] = days
        log_odds[days] = trained.predict_log_odds(row)[0]

    assert log_odds[1] > log_odds[59]
    assert log_odds[900] == log_odds[365]
    assert log_odds[59] - log_odds[365] < log_odds[1] - log_odds[59]


def test_no_worse_answer_lowers_the_estimate_even_where_the_data_say_so(data):
    features = data.rows.features
    worse = np.nan_to_num(features[:, NAMES.index("phq9_total")])
    misleading = fit(replace(data, labels=worse < np.median(worse)))
    coefficients = dict(zip(NAMES, misleading.coefficients, strict=True))
    rising = [ramp for ramp in misleading.ramps if NAMES[ramp.column] in MONOTONE_COLUMNS]

    assert min(coefficients[name] for name in MONOTONE_COLUMNS) >= 0
    assert min(ramp.coefficient for ramp in rising) >= 0
    assert min(coefficients.values()) < 0  # the others may fall


def test_the_same_data_give_the_same_model(fitted, data):
    assert fit(data) == fitted


def test_a_column_that_is_never_known_or_never_varies_is_harmless(data):
    features = data.rows.features.copy()
    features[:, 0], features[:, 1] = np.nan, 5.0
    fitted = fit(replace(data, rows=replace(data.rows, features=features)))
    rows = draw_rows(1000, 2)

    assert np.isfinite(fitted.predict(rows)).all()
    assert fitted.fill[0] == 0
    assert check_parity(fitted, fitted.export_graph(), rows) < 1e-5


def test_one_row_gives_one_probability(fitted):
    (probability,) = score_graph(open_graph(fitted.export_graph()), draw_rows(1, 1))
    assert 0 < probability < 1


@pytest.mark.parametrize("count", [0, ROWS_PER_PREDICTION, 2 * ROWS_PER_PREDICTION + 1])
def test_rows_are_scored_in_parts_as_all_together(fitted, count):
    rows = draw_rows(2 * ROWS_PER_PREDICTION + 1, 3).select(np.arange(count))
    session = open_graph(fitted.export_graph())
    (together,) = session.run(["probability"], {"features": rows.features})

    assert score_graph(session, rows) == pytest.approx(together, abs=1e-7)


def test_the_text_for_attributions_is_the_closed_form(fitted):
    text = fitted.export_files()["linear.json"]
    terms = LinearTerms.model_validate_json(text)
    explainer = LinearExplainer(terms)
    rows = draw_rows(50, 4)
    explained = [explainer.explain(row[None]).log_odds for row in rows.features]

    assert explained == pytest.approx(logit(fitted.predict(rows)), abs=1e-9)


@pytest.fixture(scope="module")
def unworn(data):
    """The data, where a person without steps has no value of the wearable at all."""
    features = data.rows.features.copy()
    steps = [number for number, name in enumerate(NAMES) if name.startswith("steps_")]
    without = np.isnan(features[:, NAMES.index("steps_mean_28")])
    features[:, steps] = np.where(without[:, None], np.nan, np.nan_to_num(features[:, steps]))
    return replace(data, rows=replace(data.rows, features=features))


def test_merged_columns_reach_the_minimum_of_all_of_them(unworn):
    given = design(unworn)
    merged, _ = fit_ridge(given.columns, given.labels, given.rising)
    place, share = given.place, given.share
    chosen = np.flatnonzero(place >= 0)
    # Every original column: those that share one, each as it is.
    whole = given.columns[:, place[chosen]] * share[chosen]
    apart, _ = fit_ridge(whole, given.labels, given.rising[place[chosen]])

    assert whole.shape[1] > given.columns.shape[1]
    assert merged[place[chosen]] * share[chosen] == pytest.approx(apart, abs=1e-6)
    assert given.columns @ merged == pytest.approx(whole @ apart, abs=1e-6)


def test_flags_that_are_always_set_together_have_the_same_coefficient(unworn):
    flags = dict(zip(NAMES, fit(unworn).missing_coefficients, strict=True))
    assert flags["steps_mean_28"] == flags["steps_sd_28"] != 0
