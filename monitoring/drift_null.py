"""How far a window without drift lies from its reference: by people drawn again, not by guess.

A window of screenings differs from the training by chance alone, and by the season it lies in. Of
the rows of a month of the training some are drawn, again and again: the distance and the missing
share of each column in these draws give its bounds. The factor is how far beyond its own bound the
farthest column of a draw lies, but for the farthest ANY_SHARE of draws: without drift at most one
window in twenty has a column beyond bound times factor. The distance is Evidently's: Wasserstein's
by the reference's spread.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from monitoring.drift_bounds import MIN_DISTANCE, MIN_MISSING, DriftNull
from monitoring.drift_reference import ColumnSummary, draw, find_limits, measure_spread

#: People of a drawn window; between them bounds are interpolated, beyond them they shrink with the
#: root of the number.
SIZES = (100, 400, 1600)
ROUNDS = 200
#: Share of draws beyond a column's own bound, and beyond that of any column by the factor.
COLUMN_SHARE, ANY_SHARE = 0.05, 0.05
#: Rows that stand for the reference, and places at which distributions are compared.
REFERENCE_ROWS, PLACES = 5_000, 400
#: Days of a window, and rows it must have to be drawn from.
WINDOW_DAYS, MIN_WINDOW_ROWS = 30, 100

Values = NDArray[np.float64]


class Distance:
    """The distance of a column's values from its summary."""

    def __init__(self, summary: ColumnSummary) -> None:
        drawn = np.sort(keep_known(draw(summary, REFERENCE_ROWS)))
        self.places = choose_places(drawn)
        self.gaps = np.diff(self.places) / measure_spread(drawn)
        self.shares = np.searchsorted(drawn, self.places, "right") / max(drawn.size, 1)

    def measure(self, values: Values) -> float:
        """Return the distance of sorted known values, those beyond the limits at the limits."""
        if not values.size or not self.places.size:
            return 0.0
        now = np.searchsorted(values, self.places, "right") / values.size
        return float((np.abs(now - self.shares)[:-1] * self.gaps).sum())


class NumberedRows:
    """Rows whose distances are measured for thousands of draws.

    A value is replaced once by the number of the first place that is not below it. A draw then
    counts numbers instead of sorting values, in a tenth of the time.
    """

    def __init__(self, columns: Sequence[NDArray[np.floating]], distances: Sequence[Distance]):
        # Two numbers more than places: a value beyond the last one, and an unknown value.
        shape = len(columns), max(len(one.places) for one in distances) + 2
        self.shares, self.gaps = np.zeros(shape), np.zeros(shape)
        self.numbers = np.empty((len(columns[0]), len(columns)), np.int16)
        for n, (values, distance) in enumerate(zip(columns, distances, strict=True)):
            found = np.searchsorted(distance.places, values)
            self.numbers[:, n] = np.where(np.isfinite(values), found, shape[1] - 1)
            self.shares[n, : distance.shares.size] = distance.shares
            self.gaps[n, : distance.gaps.size] = distance.gaps

    def __len__(self) -> int:
        return len(self.numbers)

    def measure(self, rows: NDArray[np.int64]) -> tuple[Values, Values]:
        """Return each column's distance and missing share in these rows, [columns] each."""
        numbers = self.numbers[rows] + np.arange(len(self.gaps)) * self.gaps.shape[1]
        counts = np.bincount(numbers.ravel(), minlength=self.gaps.size).reshape(self.gaps.shape)
        known = len(rows) - counts[:, -1]
        now = counts.cumsum(axis=1) / np.maximum(known, 1)[:, None]
        moved = (np.abs(now - self.shares) * self.gaps).sum(axis=1)
        return np.where(known > 0, moved, 0.0), 1 - known / len(rows)


def choose_places(drawn: Values) -> Values:
    """Return the places at which distributions are compared, from limit to limit."""
    if not drawn.size:
        return drawn
    places = np.unique(drawn)
    if len(places) > PLACES:
        places = np.unique(np.quantile(drawn, np.linspace(0, 1, PLACES)))
    lowest, highest = find_limits(drawn)
    return np.concatenate([[lowest], places, [highest]])


def keep_known(values: Values) -> Values:
    return values[np.isfinite(values)]


def make_null(
    columns: Mapping[str, NDArray[np.floating]],
    summaries: Mapping[str, ColumnSummary],
    days: NDArray[np.int64] | None,
    seed: int,
    rounds: int = ROUNDS,
) -> DriftNull:
    """Return the bounds of windows drawn from a training's rows.

    `days` are those of the rows (days since any day); without them a window is drawn from all.
    """
    random = np.random.default_rng(seed)
    numbered = NumberedRows(list(columns.values()), [Distance(summaries[name]) for name in columns])
    missing = np.array([summaries[name].missing for name in columns])
    drawn = [
        np.array(
            [
                measure_draw(numbered, draw_rows(len(numbered), days, size, random), missing)
                for _ in range(rounds)
            ]
        )
        for size in SIZES
    ]
    return summarise_draws(list(columns), drawn)


def draw_rows(
    count: int, days: NDArray[np.int64] | None, size: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """Return `size` of `count` rows, of one window of WINDOW_DAYS; of all if it has too few."""
    rows = np.arange(count)
    if days is not None:
        middle = days[random.integers(len(days))]
        near = np.flatnonzero(np.abs(days - middle) <= WINDOW_DAYS // 2)
        rows = near if len(near) >= MIN_WINDOW_ROWS else rows
    return random.choice(rows, size)


def measure_draw(numbered: NumberedRows, rows: NDArray[np.int64], missing: Values) -> Values:
    """Return each column's distance and change of missing share, float [2, columns]."""
    moved, missing_now = numbered.measure(rows)
    return np.stack([moved, np.abs(missing_now - missing)])


def summarise_draws(names: Sequence[str], drawn: Sequence[Values]) -> DriftNull:
    """Return the bounds of draws, float [rounds, 2, columns] for each of SIZES."""
    own = [np.quantile(window, 1 - COLUMN_SHARE, axis=0) for window in drawn]
    roots = np.sqrt(SIZES)
    scaled = np.stack(own) * roots[:, None, None]
    return DriftNull(
        sizes=list(SIZES),
        distances={name: scaled[:, 0, n].tolist() for n, name in enumerate(names)},
        missing={name: scaled[:, 1, n].tolist() for n, name in enumerate(names)},
        factors=[find_factor(window, bound) for window, bound in zip(drawn, own, strict=True)],
    )


def find_factor(drawn: Values, own: Values) -> float:
    """Return how far beyond its own bound the farthest column lies in but ANY_SHARE of draws.

    What is too small to matter is no column beyond its bound.
    """
    least = np.array([[MIN_DISTANCE], [MIN_MISSING]])
    counted = np.where(drawn >= least, drawn / np.maximum(own, 1e-9), 0.0)
    return max(1.0, float(np.quantile(counted.max(axis=(1, 2)), 1 - ANY_SHARE)))
