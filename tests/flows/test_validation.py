"""Validation on real Delta tables and real Great Expectations."""

from datetime import UTC, datetime, timedelta

import mlflow
import polars as pl
import pytest

from feature_repo.pseudonyms import assign_bucket, pseudonymise
from flows.datasets.lineage import find_validation
from flows.lake.merging import merge_rows
from flows.lake.tables import SET_ASIDE, locate_table, scan_table, set_rows_aside
from flows.quality.suites import list_expectations
from flows.sources.contract import TABLES
from flows.validation import VALIDATED_TABLES, ValidationFailedError, validate_lake
from tests.fixtures.landed_tables import SALT
from tests.fixtures.trained_world import enter_environment, forget_settings, make_tracking_store

NOW = datetime(2025, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def tracking_uri(prefect_server, tmp_path_factory) -> str:
    return make_tracking_store(tmp_path_factory.mktemp("validation"))


@pytest.fixture
def lake_url(tracking_uri, tmp_path, monkeypatch):
    """An empty lake."""
    url = str(tmp_path / "lake")
    variables = {
        "LAKE_URL": url,
        "MLFLOW_TRACKING_URI": tracking_uri,
        "DATABASE_URL": "postgresql://not/used",
        "JWT_SECRET_KEY": SALT,
        "ANONYMIZATION_SALT": SALT,
        "AUDIT_SIGNING_KEY": "c2lnbmluZy1rZXktb2YtdGVzdHMtMzItYnl0ZXMhISE=",
    }
    enter_environment(monkeypatch, variables)
    yield url
    forget_settings()


def land(lake_url: str, table: str, rows: int, **odd) -> None:
    """Land `rows` plausible rows; `odd` columns hold the values of the first ones instead."""
    people = [pseudonymise(f"p{number}", SALT) for number in range(rows)]
    common = {
        "anonymized_id": people,
        "key_id": ["0" * 8] * rows,
        "bucket": [assign_bucket(person) for person in people],
        "ingested_at": [NOW] * rows,
        "available_at": [NOW] * rows,
    }
    own = {
        "people": {"birth_year": 1980, "sex": "female", "ethnicity": None},
        "surveys": {"instrument": "PHQ-9", "answered_at": NOW}
        | {f"item_{n}": 1 for n in range(1, 10)},
        "wearable_days": {"date": NOW.date(), "steps": 4000.0},
        "emr_events": {"kind": "diagnosis", "system": "s", "code": "c", "started_at": NOW},
    }[table]
    columns = {name: [value] * rows for name, value in own.items()}
    for name, values in odd.items():
        columns[name] = [*values, *columns.get(name, [None] * rows)[len(values) :]]
    schema = dict(TABLES[table].schema)
    columns = {name: (common | columns).get(name, [None] * rows) for name in schema}
    merge_rows(lake_url, table, pl.DataFrame(columns, schema=schema))


def read_aside(lake_url: str, table: str) -> pl.DataFrame:
    return pl.scan_delta(locate_table(lake_url, f"{SET_ASIDE}/{table}")).collect()


def load_page(run_id: str) -> str:
    uri = mlflow.get_run(run_id).info.artifact_uri
    return mlflow.artifacts.load_text(f"{uri}/validation.html")


@pytest.mark.parametrize(
    ("table", "odd", "words"),
    [
        ("surveys", {"item_3": [4, 5]}, "item_3 is answered 0 to 3"),
        ("surveys", {"instrument": ["GAD-7", "GAD-7"]}, "A shorter instrument has no item_8"),
        ("surveys", {"instrument": ["PCL-5", "PCL-5"]}, "The instrument is a known one"),
        ("people", {"sex": ["F", "M"]}, "Sex is a known code"),
        ("people", {"birth_year": [1850, 1899]}, "Year of birth is 1900 or later"),
        ("wearable_days", {"steps": [-1.0, 999_999.0]}, "steps is 0 to 200000"),
        ("emr_events", {"kind": ["visit", "x"]}, "The event is a diagnosis"),
        ("emr_events", {"setting": ["ward", "x"]}, "The setting of an encounter is a known one"),
        (
            "emr_events",
            {"ended_at": [NOW - timedelta(days=1)] * 2},
            "Nothing ends before it starts",
        ),
    ],
)
def test_a_table_beyond_tolerance_stops_in_the_expectations_words(lake_url, table, odd, words):
    land(lake_url, table, 20, **odd)

    with pytest.raises(ValidationFailedError) as caught:
        validate_lake()
    assert f"{table}: {words}" in str(caught.value)
    assert "(2 of " in str(caught.value)


def test_a_table_that_stops_a_run_stops_the_next_one_too(lake_url):
    land(lake_url, "people", 20, sex=["F", "M"])
    for _ in range(2):
        with pytest.raises(ValidationFailedError, match="2 of 20"):
            validate_lake()

    assert scan_table(lake_url, "people").collect().height == 20


def test_a_failure_names_nobody(lake_url):
    land(lake_url, "people", 20, sex=["a strange value", "M"])
    with pytest.raises(ValidationFailedError) as caught:
        validate_lake()
    run = mlflow.search_runs(
        experiment_names=["mhras-validation"], max_results=1, output_format="list"
    )[0]
    page = load_page(run.info.run_id)

    for text in (str(caught.value), page):
        assert "a strange value" not in text
        assert pseudonymise("p0", SALT) not in text
    assert run.data.tags["success"] == "false"
    assert "failed" in page


def test_rows_within_tolerance_are_set_aside_and_gone_from_the_table(lake_url):
    land(lake_url, "surveys", 100, item_3=[4, 5], item_4=[9])
    run_id = validate_lake()
    aside, kept = read_aside(lake_url, "surveys"), scan_table(lake_url, "surveys").collect()

    assert (aside.height, kept.height) == (2, 98)
    assert set(aside["anonymized_id"]).isdisjoint(kept["anonymized_id"])
    reasons = dict(aside.select("item_3", "reason").iter_rows())
    assert reasons[5] == "item_3 is answered 0 to 3"
    assert reasons[4] == "item_3 is answered 0 to 3; item_4 is answered 0 to 3"
    assert mlflow.get_run(run_id).data.metrics["surveys_set_aside"] == 2


def test_a_second_run_finds_nothing_more(lake_url):
    land(lake_url, "surveys", 100, item_3=[4])
    validate_lake()
    again = validate_lake()

    assert mlflow.get_run(again).data.metrics["surveys_set_aside"] == 0
    assert read_aside(lake_url, "surveys").height == 1
    assert scan_table(lake_url, "surveys").collect().height == 99


def test_a_move_that_was_cut_off_is_finished_without_a_double(lake_url):
    land(lake_url, "people", 30)
    rows = scan_table(lake_url, "people").head(2).collect().with_columns(reason=pl.lit("a test"))
    set_rows_aside(lake_url, "people", rows)
    set_rows_aside(lake_url, "people", rows)

    assert read_aside(lake_url, "people").height == 2
    assert scan_table(lake_url, "people").collect().height == 28


def test_missing_readings_are_no_failures(lake_url):
    land(lake_url, "wearable_days", 20)
    validate_lake()
    assert scan_table(lake_url, "wearable_days").collect().height == 20


def test_an_empty_lake_passes(lake_url):
    run_id = validate_lake()
    page = load_page(run_id)

    assert mlflow.get_run(run_id).data.tags["success"] == "true"
    assert page.count("none (no such table yet)") == len(VALIDATED_TABLES)


def test_the_page_loads_nothing_and_shows_every_expectation(lake_url):
    for table in ("people", "surveys"):
        land(lake_url, table, 20)
    page = load_page(validate_lake())

    for loader in ("http", "src=", "href=", "@import", "url(", "<script", "<link", "<img"):
        assert loader not in page
    for expectation in list_expectations("surveys"):
        assert expectation.description in page
    assert not any(pseudonymise(f"p{n}", SALT) in page for n in range(20))


def test_a_validation_is_found_by_the_versions_it_saw(lake_url):
    land(lake_url, "people", 20)
    run_id = validate_lake()
    versions = dict.fromkeys(VALIDATED_TABLES) | {"people": 1}
    run = mlflow.get_run(run_id)
    tags, experiment_id = run.data.tags, run.info.experiment_id
    versions["people"] = int(tags["version.people"])

    found = {"run_id": run_id, "experiment_id": experiment_id, "success": "true"}
    assert find_validation(versions) == found
    assert find_validation(versions | {"people": versions["people"] + 1}) == {}
