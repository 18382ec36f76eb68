"""What the features of a cohort cost: time and peak memory by number of individuals.

Buckets are computed one at a time, so memory should stay flat and time grow with people. Then
what puts the features of one day online costs: Feast's write and ours, block by block in turn.
"""

import os
import resource
import tempfile
import warnings
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

import polars as pl

from feature_repo import definitions
from feature_repo.catalogue import STORED_VIEWS, TABLED_VIEWS
from feature_repo.feast_library import FeatureStore
from feature_repo.feature_tables import EVENT_TIMESTAMP
from feature_repo.online_store import REPOSITORY
from feature_repo.postgres_writer import PostgresWriter
from feature_repo.pseudonyms import pseudonymise
from feature_repo.stored_views import JOIN_KEY
from flows.cohort import simulate_cohort
from flows.features.demographics import ALWAYS
from flows.features.moments import find_midnight
from flows.features.online import FeastWriter, OnlineWriter, write_online
from flows.features.tables import ensure_table, list_columns
from flows.materialisation import compute_views
from infra.local.ports import choose_port
from infra.local.postgres import PostgresServer, remove_root_state, start_postgres

SIZES = (1000, 2000, 4000)
ONLINE_SIZES = (10_000, 30_000)
LAST_DAY = date(2025, 12, 31)
SNAPSHOT = LAST_DAY + timedelta(days=1)


def compute_features(people: int) -> int:
    """Compute every view, block by block, and keep nothing; return the rows computed."""
    return sum(view.height for views in compute_blocks(people) for view in views.values())


def compute_blocks(people: int) -> Iterator[dict[str, pl.DataFrame]]:
    for block in simulate_cohort(people, 1, LAST_DAY, seed=7):
        tables = {name: mark_landed(frame) for name, frame in block.items() if name != "consents"}
        yield compute_views(tables, SNAPSHOT)


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
    print(
        f"{'people':>8} {'rows':>10} {'seconds':>8} {'peak MB':>8} {'ms a person':>12}", flush=True
    )
    for people in SIZES:
        _run(measure, people)
    print("\nFeatures of one day into Feast's online store, ms a person\n")
    print(
        f"{'people':>8} {'Feast':>8} {'ours':>8} {'ratio':>7} {'Feast, next day':>15} {'ours':>9} "
        f"{'ratio':>7} {'unchanged':>10} {'peak MB':>8}",
        flush=True,
    )
    with tempfile.TemporaryDirectory(prefix="mhras-online-") as name:
        server = start_postgres(Path(name) / "postgres", choose_port(15742), "bench")
        try:
            for people in ONLINE_SIZES:
                _run(measure_online, people, server, Path(name))
        finally:
            server.stop()
            remove_root_state(Path(name) / "postgres")


def _run(work: Callable[..., None], *arguments: Any) -> None:
    process = get_context("spawn").Process(target=work, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


def measure(people: int) -> None:
    begun = perf_counter()
    rows = compute_features(people)
    seconds = perf_counter() - begun
    print(
        f"{people:8,} {rows:10,} {seconds:8.1f} {_read_peak():8.0f} {1000 * seconds / people:12.2f}"
    )


def _read_peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# Going online


def measure_online(people: int, server: PostgresServer, folder: Path) -> None:
    """Print what each write of the same rows costs; both writers have a database of their own."""
    feast, ours = (make_store(server, folder, f"{kind}_{people}") for kind in ("feast", "ours"))
    seconds = dict.fromkeys(("feast", "ours", "unchanged", "Feast next day", "next day"), 0.0)
    for views in compute_blocks(people):
        rows = {view.name: select_day(view, views[view.name]) for view in STORED_VIEWS}
        moved = {name: move_a_day(frame) for name, frame in rows.items()}
        runs = ((feast, rows), (ours, rows), (ours, rows), (feast, moved), (ours, moved))
        for name, (writer, frames) in zip(seconds, runs, strict=True):
            seconds[name] += time_write(writer, frames)
    each = {name: 1000 * spent / people for name, spent in seconds.items()}
    print(
        f"{people:8,} {each['feast']:8.2f} {each['ours']:8.2f} "
        f"{each['feast'] / each['ours']:6.1f}x {each['Feast next day']:15.2f} "
        f"{each['next day']:9.2f} {each['Feast next day'] / each['next day']:6.1f}x "
        f"{each['unchanged']:10.2f} {_read_peak():8.0f}",
        flush=True,
    )


def make_store(server: PostgresServer, folder: Path, database: str) -> OnlineWriter:
    """Return a writer of a new online store; Feast's where the name begins with it."""
    from tests.fixtures.trained_world import make_feast_variables

    server.create_databases([database])
    os.environ.update(make_feast_variables(server, database), LAKE_URL=str(folder / "lake"))
    for view in TABLED_VIEWS:
        ensure_table(view)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast warns at every apply
        FeatureStore(repo_path=str(REPOSITORY)).apply(
            [getattr(definitions, name) for name in definitions.__all__]
        )
    if database.startswith("feast"):
        return FeastWriter()
    writer = PostgresWriter()
    writer.reserve_space_for_updates([view.name for view in TABLED_VIEWS])
    return writer


def select_day(view: Any, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that a night serves, with the columns of the view's table."""
    moment = find_midnight(SNAPSHOT) if view.ttl else ALWAYS
    kinds = {name: kind for name, kind in list_columns(view).items() if name != "bucket"}
    day = rows.filter(pl.col(EVENT_TIMESTAMP) == moment).unique(JOIN_KEY, keep="last")
    people = [pseudonymise(person, "bench" * 8) for person in day[JOIN_KEY]]
    day = day.with_columns(pl.Series(JOIN_KEY, people, pl.String))
    return day.select(pl.col(name).cast(kind) for name, kind in kinds.items())


def move_a_day(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.col(EVENT_TIMESTAMP) + timedelta(days=1))


def time_write(writer: OnlineWriter, frames: dict[str, pl.DataFrame]) -> float:
    begun = perf_counter()
    for view in STORED_VIEWS:
        write_online(writer, view, frames[view.name])
    return perf_counter() - begun


if __name__ == "__main__":
    main()
