"""Work by bucket: nobody is left out or met twice, and where it runs changes no result."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner

from feature_repo.catalogue import STORED_VIEWS
from flows.features.tables import ensure_table, merge_rows, read_bucket
from flows.lake.merging import merge_rows as land_rows
from flows.lake.spans import EVERYBODY, SPAN_SIZE, count_individuals, divide
from flows.materialisation import compute_bucket, compute_views
from flows.runtime.buckets import choose_runner, run_buckets
from serving.settings import get_settings
from tests.fixtures.landed_tables import Tables, simulate_tables

LAST_DAY = date(2025, 12, 31)
SNAPSHOT = LAST_DAY + timedelta(days=1)
BUCKETS = range(4)
PSEUDONYMS = st.text("0123456789abcdef", min_size=32, max_size=32)
SECRETS = {
    "DATABASE_URL": "postgresql://nobody:hidden@127.0.0.1:1/mhras",
    "JWT_SECRET_KEY": "a secret for tests, 256 bit or more of it",
    "ANONYMIZATION_SALT": "a salt for tests, 256 bit or more of it",
    "AUDIT_SIGNING_KEY": "c2lnbmluZy1rZXktb2YtdGVzdHMtMzItYnl0ZXMhISE=",
}


@pytest.fixture
def variables(monkeypatch) -> Iterator[pytest.MonkeyPatch]:
    """An environment in which the settings can be read."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    yield monkeypatch
    get_settings.cache_clear()


# Spans


@given(st.integers(0, 10**7), PSEUDONYMS)
def test_every_pseudonym_is_of_exactly_one_span(individuals, pseudonym):
    spans = divide(individuals)

    assert sum(one.first <= pseudonym < one.beyond for one in spans) == 1
    assert len(spans) == 4096 or individuals / len(spans) <= SPAN_SIZE


@given(st.integers(1, 10**6))
def test_as_individuals_join_spans_are_halved(individuals):
    edges = {one.first for one in divide(individuals)}

    assert edges <= {one.first for one in divide(2 * individuals)}


def test_few_individuals_are_one_span():
    assert divide(0) == divide(SPAN_SIZE) == [EVERYBODY]


def test_a_span_is_written_without_touching_the_others(tmp_path, monkeypatch):
    monkeypatch.setenv("LAKE_URL", str(tmp_path))
    view = next(view for view in STORED_VIEWS if view.name == "demographics")
    ensure_table(view)
    rows = compute_views(simulate_tables(40, 1, LAST_DAY), SNAPSHOT)["demographics"]
    first, second = divide(2 * SPAN_SIZE)
    parts = [rows.filter(one.holds()) for one in (first, second)]
    for span, part in zip((first, second), parts, strict=True):
        assert merge_rows(view, 3, part, span) == part.height > 0
    changed = parts[0].with_columns(pl.col("birth_year") + 1)

    assert merge_rows(view, 3, changed, first) == changed.height
    assert read_bucket(view, 3).height == rows.height
    kept = read_bucket(view, 3, second).sort("anonymized_id")
    assert kept["birth_year"].to_list() == parts[1].sort("anonymized_id")["birth_year"].to_list()
    assert merge_rows(view, 3, parts[1], second) == 0


def test_the_fullest_table_says_how_many_individuals_there_are(tmp_path):
    tables = simulate_tables(40, 1, LAST_DAY)
    land(str(tmp_path), tables)
    people = tables["people"].filter(pl.col("bucket") == 2)

    assert count_individuals(str(tmp_path), 2) == people.height > 0
    assert count_individuals(str(tmp_path / "nowhere"), 2) == 0


# Where it runs


@task(cache_policy=NO_CACHE)
def fail_in_one(bucket: int) -> int:
    if bucket == 1:
        raise ConnectionError("broken by a test")
    return bucket


def test_a_bucket_that_fails_stops_no_other_and_fails_the_run(variables, prefect_server):
    ended: list[int] = []

    @flow(name="with-a-broken-bucket")
    def run() -> None:
        ended.extend(run_buckets(fail_in_one, BUCKETS))

    with pytest.raises(ConnectionError):
        run()
    assert sorted(ended) == [0, 2, 3]


def test_threads_do_the_work_unless_a_cluster_is_named(variables):
    variables.setenv("BUCKET_WORKERS", "3")

    assert choose_runner() == ThreadPoolTaskRunner(max_workers=3)


@flow(name="features-of-some-buckets")
def compute_some(lake_url: str) -> list[dict[str, Any]]:
    return list(run_buckets(compute_bucket, BUCKETS, lake_url=lake_url, snapshot=SNAPSHOT))


def land(lake_url: str, tables: Tables) -> None:
    for name, rows in tables.items():
        land_rows(lake_url, name, rows)


def compute_features(patch: pytest.MonkeyPatch, folder: Path, tables: Tables) -> pl.DataFrame:
    """Land the tables, compute some buckets where the settings say, return a view's rows."""
    patch.setenv("LAKE_URL", str(folder))
    get_settings.cache_clear()
    land(str(folder), tables)
    for view in STORED_VIEWS:
        ensure_table(view)
    counts = compute_some(str(folder))
    assert sum(one["wearable_windows"][1] for one in counts) > 0
    view = next(view for view in STORED_VIEWS if view.name == "wearable_windows")
    rows = pl.concat(read_bucket(view, bucket) for bucket in BUCKETS)
    return rows.sort("anonymized_id", "event_timestamp", "created_timestamp")


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")  # what a cluster warns of while it starts and stops
def test_a_dask_cluster_gives_equal_results(variables, prefect_server, tmp_path):
    from distributed import LocalCluster

    tables = simulate_tables(60, 1, LAST_DAY)
    here = compute_features(variables, tmp_path / "threads", tables)
    variables.setenv("LAKE_URL", str(tmp_path / "dask"))
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        variables.setenv("DASK_SCHEDULER_ADDRESS", cluster.scheduler_address)
        there = compute_features(variables, tmp_path / "dask", tables)
        worked = {
            name
            for name, one in cluster.scheduler.workers.items()
            if one.metrics["cpu"] is not None
        }

    assert len(worked) == 2
    assert there.height > 20
    assert_frame_equal(here, there)
