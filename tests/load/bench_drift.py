"""What a drift report of 100,000 screenings costs: seconds and peak memory, page included.

The tests run on a sample of stated size, so neither grows with the screenings.
"""

import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import pandas as pd

from monitoring.drift import SAMPLE_ROWS, measure_drift
from monitoring.drift_reference import make_reference

SIZES = (10_000, 100_000)
COLUMNS = 60


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
