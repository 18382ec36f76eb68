"""The bounds of windows without drift: few false alarms, and what must be found is found."""

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from monitoring.drift_bounds import MIN_DISTANCE
from monitoring.drift_null import (
    REFERENCE_ROWS,
    Distance,
    NumberedRows,
    keep_known,
    make_null,
)
from monitoring.drift_reference import DriftReference, draw, make_reference, summarise

COLUMNS = 40


def draw_population(rows: int, seed: int, shift: float = 0.0) -> dict[str, np.ndarray]:
    """Draw columns that hang together, as the features of people do; every fourth is an item."""
    random = np.random.default_rng(seed)
    severity = random.normal(shift, 1, rows)
    columns = {}
    for n in range(COLUMNS):
        values = 0.7 * severity + 0.7 * random.normal(size=rows)
        columns[f"column_{n}"] = np.clip(np.round(values + 1), 0, 3) if n % 4 == 0 else values
    return columns


@pytest.fixture(scope="module")
def reference() -> DriftReference:
    rows = draw_population(3000, 1)
    made = make_reference(rows, np.empty(0), {})
    null = make_null(rows, made.columns, None, seed=1, rounds=150)
    return made.model_copy(update={"null": null, "people": 3000})


def count_alarms(reference: DriftReference, people: int, shift: float, windows: int = 60) -> float:
    return np.mean(
        [raises_alarm(reference, draw_population(people, 100 + n, shift)) for n in range(windows)]
    )


def raises_alarm(reference: DriftReference, rows: dict[str, np.ndarray]) -> bool:
    people = len(next(iter(rows.values())))
    return any(
        Distance(reference.columns[name]).measure(np.sort(values))
        >= reference.find_bounds(name, people).distance
        for name, values in rows.items()
    )


@pytest.mark.parametrize("people", [150, 500, 2500])
def test_windows_without_drift_raise_an_alarm_in_at_most_one_of_twenty(reference, people):
    # Of 60 windows 6 are what chance makes of 3.
    assert count_alarms(reference, people, 0.0) <= 0.1


def test_a_shift_of_a_quarter_of_a_deviation_is_found_in_four_of_five(reference):
    assert count_alarms(reference, 1000, 0.25) >= 0.8


def test_bounds_narrow_with_the_people_of_the_window(reference):
    bounds = [reference.find_bounds("column_1", people).distance for people in (100, 400, 1600)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > 1.5 * bounds[2]
    assert reference.find_bounds("column_1", 10**9).distance >= MIN_DISTANCE


def test_few_people_behind_the_reference_widen_the_bounds(reference):
    alone = reference.model_copy(update={"people": 100})
    assert alone.find_bounds("column_1", 1000).distance > 1.5 * (
        reference.find_bounds("column_1", 1000).distance
    )


def test_a_season_of_the_training_widens_what_counts_as_drift():
    random, days = np.random.default_rng(1), np.arange(4000) // 11
    sleep = random.normal(size=4000) + np.sin(days / 58)
    made = make_reference({"sleep": sleep}, np.empty(0), {})
    bounds = [
        make_null({"sleep": sleep}, made.columns, known, 1, 100).find_bounds("sleep", 1000, 3000)
        for known in (None, days)
    ]
    assert bounds[1].distance > 3 * bounds[0].distance


@pytest.mark.parametrize("name", ["column_0", "column_1"])
def test_the_distance_is_that_of_evidently(name):
    then, now = draw_population(4000, 1)[name], draw_population(700, 2, 0.3)[name]
    summary = summarise(then)
    drawn = draw(summary, REFERENCE_ROWS)
    expected = wasserstein_distance(drawn, now) / np.std(drawn)

    assert Distance(summary).measure(np.sort(now)) == pytest.approx(expected, rel=0.05)


def test_the_distances_of_a_draw_are_those_of_its_values():
    random = np.random.default_rng(4)
    then = draw_population(3000, 1) | {"unknown": np.full(3000, np.nan), "constant": np.ones(3000)}
    now = draw_population(500, 2, 0.5) | {"unknown": np.ones(500), "constant": np.full(500, 2.0)}
    now = {name: np.where(random.random(500) < 0.2, np.nan, values) for name, values in now.items()}
    now["column_1"][:] = np.nan
    now["column_2"] *= 20  # far beyond the limits
    distances = [Distance(summarise(values)) for values in then.values()]
    rows = random.choice(500, 300)

    moved, missing = NumberedRows(list(now.values()), distances).measure(rows)

    drawn = [keep_known(values[rows]) for values in now.values()]
    expected = [one.measure(np.sort(values)) for one, values in zip(distances, drawn, strict=True)]
    assert moved == pytest.approx(expected, abs=1e-12)
    assert missing == pytest.approx([1 - len(values) / 300 for values in drawn])
