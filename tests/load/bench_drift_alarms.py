"""How often drift raises a false alarm, and how often it finds what it must.

A reference is of 3,000 simulated people; the shares are means over several references, since each
has its own luck. Each window is of a month of 1,000 others: without drift, with a severity shift of
0.25 SDs, and with a device that counts 30 % more steps. Wanted are alarms in at most 5 % of the
first and in at least 80 % of the others, of screenings on request and of batches.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd
import polars as pl
from numpy.typing import NDArray

from feature_repo.answer_features import INDEX_DAY, REQUEST_FIELDS, compute_answer_features
from feature_repo.catalogue import list_model_inputs
from flows.cohort import simulate_cohort
from flows.datasets.labels import INDEX_DATE, list_totals
from flows.datasets.training_set import make_entity_frame
from flows.evaluation.drift_reference import REFERENCE_DAYS, reference_rows
from flows.materialisation import compute_views
from flows.simulation.latent import BLOCK_SIZE
from monitoring.drift import measure_drift
from monitoring.drift_reference import DriftReference
from tests.load.bench_features import mark_landed

PEOPLE, YEARS, LAST_DAY, SEED = 3000, 3, date(2025, 12, 31), 5
SNAPSHOT = LAST_DAY + timedelta(days=1)
WINDOW_DAYS, MORE_STEPS, MORE_SEVERE = 30, 1.3, 0.25
#: Blocks of 1,000 people without drift, and with each kind of it; references drawn of the first.
WITHOUT, WITH, REFERENCES = 20, 5, 2
NAMES = [column.name for column in list_model_inputs()]
KEY, AT = "anonymized_id", "at"
Tables = dict[str, pl.DataFrame]
References = dict[str, DriftReference]
KINDS = ("requests", "batches")
DRIFTS = ("no drift", "severity +0.25 SDs", "steps +30 %")


@dataclass(frozen=True)
class Screened:
    """What a thousand people's screenings read: on request, and in a batch on SNAPSHOT."""

    people: NDArray[np.str_]
    requests: NDArray[np.float32]
    days: NDArray[np.int64]
    batch: NDArray[np.float32]

    def select_window(self) -> "Screened":
        last = self.days > self.days.max() - WINDOW_DAYS
        return Screened(self.people[last], self.requests[last], self.days[last], self.batch)


def screen(block: Tables, change: Callable[[Tables], Tables]) -> Screened:
    """Return the model inputs of every PHQ-9 of a block, and of everyone on SNAPSHOT."""
    tables = change(
        {name: mark_landed(frame) for name, frame in block.items() if name != "consents"}
    )
    views = compute_views(tables, SNAPSHOT)
    totals = list_totals(tables["surveys"]).unique([KEY, INDEX_DATE], keep="first")
    index = totals.select(KEY, INDEX_DATE, pl.col("answered_at").alias("index_time"))
    asked = make_entity_frame(index, tables["surveys"])
    requests = asked.with_columns(pl.col(INDEX_DATE).cast(pl.Datetime("us", "UTC")).alias(AT))
    return Screened(
        people=requests[KEY].to_numpy().astype(np.str_),
        requests=join_views(requests, views),
        days=requests[INDEX_DATE].cast(pl.Int32).to_numpy().astype(np.int64),
        batch=join_views(make_batch(tables["people"]), views),
    )


def make_batch(people: pl.DataFrame) -> pl.DataFrame:
    unanswered = [name for name in REQUEST_FIELDS if name != INDEX_DAY]
    return people.select(
        KEY,
        pl.lit(SNAPSHOT).cast(pl.Datetime("us", "UTC")).alias(AT),
        pl.lit(float((SNAPSHOT - date(1970, 1, 1)).days)).alias(INDEX_DAY),
        *(pl.lit(None, pl.Float64).alias(name) for name in unanswered),
    )


def join_views(rows: pl.DataFrame, views: Tables) -> NDArray[np.float32]:
    """Return the model inputs of rows at their moments, [rows, columns]."""
    for name in ("survey_history", "wearable_windows", "care_history"):
        view = views[name].sort("created_timestamp").rename({"event_timestamp": AT})
        known = view.drop("created_timestamp").unique([KEY, AT], keep="last")
        rows = rows.join(known, on=[KEY, AT], how="left", maintain_order="left")
    person = views["demographics"].drop("event_timestamp", "created_timestamp").unique(KEY)
    rows = rows.join(person, on=KEY, how="left", maintain_order="left")
    known_numbers = pl.selectors.numeric() | pl.selectors.boolean()
    numbers = rows.select(known_numbers).cast(pl.Float64)
    columns = {name: numbers[name].to_numpy() for name in numbers.columns}
    columns |= compute_answer_features(columns)
    return np.column_stack([columns[name] for name in NAMES]).astype(np.float32)


def leave(tables: Tables) -> Tables:
    return tables


def count_more_steps(tables: Tables) -> Tables:
    days = tables["wearable_days"]
    more = (pl.col("steps") * MORE_STEPS).cast(days.schema["steps"])
    return tables | {"wearable_days": days.with_columns(more)}


def draw_blocks(
    first: int, blocks: int, severe: float = 0.0, change: Callable[[Tables], Tables] = leave
) -> Iterator[Screened]:
    people, begin = blocks * BLOCK_SIZE, first * BLOCK_SIZE
    for block in simulate_cohort(people, YEARS, LAST_DAY, SEED, begin, severe):
        yield screen(block, change)


def make_references(blocks: Sequence[Screened]) -> References:
    """Return what requests and batches are compared with, as a training makes it."""
    requests, days, people = (
        np.concatenate([getattr(one, name) for one in blocks])
        for name in ("requests", "days", "people")
    )
    recent = days > days.max() - REFERENCE_DAYS
    known = len(np.unique(people[recent]))
    stored = np.concatenate([one.batch for one in blocks])
    return {
        "requests": reference_rows(
            requests[recent], np.empty(0), {}, SEED, people=known, days=days[recent]
        ),
        "batches": reference_rows(stored, np.empty(0), {}, SEED, people=len(stored)),
    }


def raise_alarms(references: References, window: Screened) -> dict[str, list[str]]:
    """Return the modalities that raise an alarm, of requests and of batches."""
    rows = {"requests": window.requests, "batches": window.batch}
    people = {"requests": len(np.unique(window.people)), "batches": len(window.batch)}
    return {
        name: measure_drift(
            references[name],
            pd.DataFrame(rows[name], columns=NAMES),
            pd.Series(dtype=float),
            people[name],
        ).alarms
        for name in references
    }


def compare(references: References, windows: Iterable[Screened]) -> list[dict[str, list[str]]]:
    return [raise_alarms(references, one.select_window()) for one in windows]


def report(name: str, found: Sequence[Mapping[str, list[str]]]) -> None:
    shares = {kind: np.mean([bool(one[kind]) for one in found]) for kind in KINDS}
    named = sorted({alarm for one in found for alarms in one.values() for alarm in alarms})
    print(
        f"{name:>22} {len(found):>6} {shares['requests']:>9.0%} {shares['batches']:>9.0%}  "
        f"{', '.join(named)}",
        flush=True,
    )


def main() -> None:
    """Print the share of windows with an alarm; `--quick` takes fewer of them."""
    quick = "--quick" in sys.argv
    without, changed, rounds = (3, 1, 1) if quick else (WITHOUT, WITH, REFERENCES)
    size = PEOPLE // BLOCK_SIZE
    same = list(draw_blocks(0, size + without))
    severe = list(draw_blocks(len(same), changed, MORE_SEVERE))
    stepping = list(draw_blocks(len(same) + changed, changed, 0.0, count_more_steps))
    found: dict[str, list[dict[str, list[str]]]] = {}
    for n in range(0, rounds * size, size):
        references = make_references(same[n : n + size])
        others = same[:n] + same[n + size :]
        for kind, windows in zip(DRIFTS, (others, severe, stepping), strict=True):
            found.setdefault(kind, []).extend(compare(references, windows))
    print(f"\n{'windows':>22} {'count':>6} {'requests':>9} {'batches':>9}  modalities")
    for kind, alarms in found.items():
        report(kind, alarms)


if __name__ == "__main__":
    main()
