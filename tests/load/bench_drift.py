"""What a drift report of 100,000 screenings costs, page included, and what its sample overlooks.

The tests run on a sample of stated size, so seconds and peak memory do not grow with the
screenings. Beside them stands how often a shift of one column is found in the sample and in all of
100,000 rows: shifts that only all rows show are too small to matter (MIN_DISTANCE).
"""

import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import pandas as pd

from feature_repo.catalogue import list_model_inputs
from monitoring.drift import SAMPLE_ROWS, measure_drift
from monitoring.drift_bounds import MIN_DISTANCE
from monitoring.drift_null import Distance
from monitoring.drift_reference import make_reference, summarise

SIZES = (10_000, 100_000)
#: Those of a release: every model input.
COLUMNS = len(list_model_inputs())
#: Shifts of one column in standard deviations; MIN_DISTANCE is its bound in a window this large.
SHIFTS = (0.0, 0.03, 0.04, 0.05, 0.06, 0.07, 0.1)
WINDOWS = 200


def draw(rows: int, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    columns = {}
    for number in range(COLUMNS):
        drawn = random.integers(0, 4, rows) if number % 4 == 0 else random.normal(size=rows)
        columns[f"column_{number}"] = drawn.astype(float)
    return columns


def main() -> None:
    """Run each size in a process of its own, so that peaks do not add up."""
    print(f"\nDrift of {COLUMNS} columns, {SAMPLE_ROWS:,} rows of either side tested\n")
    print(f"{'screenings':>11} {'seconds':>8} {'peak MB':>8}", flush=True)
    for rows in SIZES:
        subprocess.run([sys.executable, "-m", "tests.load.bench_drift", str(rows)], check=True)
    compare_power(SIZES[-1])


def compare_power(rows: int) -> None:
    """Print how often a shift is found in a sample of a window, and in all its rows."""
    random = np.random.default_rng(5)
    distance = Distance(summarise(random.normal(size=30_000)))
    print(f"\nOf {WINDOWS} windows of {rows:,} rows, beyond a bound of {MIN_DISTANCE}\n")
    print(f"{'shift':>6} {f'{SAMPLE_ROWS:,} rows':>11} {'all rows':>9}")
    for shift in SHIFTS:
        found = np.array([find_shift(distance, random, rows, shift) for _ in range(WINDOWS)])
        sampled, whole = found.mean(axis=0)
        print(f"{shift:6.2f} {sampled:11.0%} {whole:9.0%}", flush=True)


def find_shift(
    distance: Distance, random: np.random.Generator, rows: int, shift: float
) -> tuple[bool, bool]:
    """Return whether a window's sample, and whether all its rows lie beyond the bound."""
    window = random.normal(shift, 1, rows)
    sampled = distance.measure(np.sort(window[:SAMPLE_ROWS]))
    return sampled >= MIN_DISTANCE, distance.measure(np.sort(window)) >= MIN_DISTANCE


def measure(rows: int) -> None:
    reference = make_reference(draw(30_000, 1), np.random.default_rng(1).random(5000), {})
    features, scores = pd.DataFrame(draw(rows, 2)), np.random.default_rng(2).random(rows)
    begun = perf_counter()
    # As the flow does in the database: a random sample, then the tests.
    chosen = np.random.default_rng(3).permutation(rows)[:SAMPLE_ROWS]
    result = measure_drift(reference, features.iloc[chosen], pd.Series(scores[chosen]), rows)
    with TemporaryDirectory() as folder:
        assert result.snapshot is not None
        result.snapshot.save_html(str(Path(folder) / "drift.html"))
    seconds = perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{rows:11,} {seconds:8.1f} {peak:8.0f}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(int(sys.argv[1]))
    else:
        main()
