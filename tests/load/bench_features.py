"""What the features of a cohort cost: time and peak memory by number of individuals.

Buckets are computed one at a time, so memory should stay flat and time grow with people.
"""

import resource
import subprocess
import sys
from datetime import date, timedelta
from time import perf_counter

import polars as pl

from flows.cohort import simulate_cohort
from flows.materialisation import compute_views

SIZES = (1000, 2000, 4000)
LAST_DAY = date(2025, 12, 31)


def compute_features(people: int) -> int:
    """Compute every view, block by block, and keep nothing; return the rows computed."""
    rows = 0
    for block in simulate_cohort(people, 1, LAST_DAY, seed=7):
        tables = {name: mark_landed(frame) for name, frame in block.items() if name != "consents"}
        views = compute_views(tables, LAST_DAY + timedelta(days=1))
        rows += sum(view.height for view in views.values())
    return rows


def mark_landed(frame: pl.DataFrame) -> pl.DataFrame:
    landed = frame.rename({"person_id": "anonymized_id"})
    if "birth_date" in landed.columns:
        return landed.with_columns(pl.col("birth_date").dt.year().alias("birth_year"))
    moment = next(name for name in ("answered_at", "started_at", "date") if name in landed.columns)
    if moment == "answered_at":
        # The lake's column; a simulated questionnaire has its items instead.
        landed = landed.with_columns(pl.lit(None, pl.Int16).alias("total"))
    known = pl.col(moment).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return landed.with_columns(known.alias("available_at"))


def main() -> None:
    """Run each size in a process of its own, so that peaks do not add up."""
    print("\nFeatures of a simulated cohort (one year each)\n")
    print(f"{'people':>8} {'rows':>10} {'seconds':>8} {'peak MB':>8} {'ms a person':>12}")
    for people in SIZES:
        subprocess.run([sys.executable, "-m", "tests.load.bench_features", str(people)], check=True)


def measure(people: int) -> None:
    begun = perf_counter()
    rows = compute_features(people)
    seconds = perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    per_person = 1000 * seconds / people
    print(f"{people:8,} {rows:10,} {seconds:8.1f} {peak:8.0f} {per_person:12.2f}")


if __name__ == "__main__":
    measure(int(sys.argv[1]))
