"""What lands does not depend on how it was divided into drops, or on their order."""

import json
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.instruments import PHQ9
from flows.lake.joining import join_records
from flows.lake.parts import RETRACTION_SCHEMA, schema_of_parts
from flows.lake.standing import choose_current
from flows.sources.clean import check_rows
from flows.sources.contract import EMR_EVENTS, SURVEYS, WEARABLE_DAYS, Table
from tests.fixtures.fhir import NOW, observation, quantity, read
from tests.fixtures.quiet_ingestion import ingest_quietly, read_rows, write_drop

PEOPLE = ("p1", "p2")
DEVICES = (None, "Anna's Watch", "Phone")


def subject(person: str) -> dict[str, Any]:
    return {"subject": {"reference": f"Patient/{person}"}}


people = st.sampled_from(PEOPLE)
minutes = st.integers(0, 59)


@st.composite
def items(draw: st.DrawFn) -> dict[str, Any]:
    """An item of PHQ-9, answered by one person at some second of one of two hours."""
    number = draw(st.integers(0, 8))
    at = f"2025-03-01T1{draw(st.integers(0, 1))}:{draw(minutes):02}:{draw(minutes):02}Z"
    answer = {"valueInteger": draw(st.integers(0, 3))}
    return observation(PHQ9.item_loincs[number], at, **answer, **subject(draw(people)))


@st.composite
def spans(draw: st.DrawFn) -> dict[str, Any]:
    """A reading of steps or sleep over some minutes of one day, by one of three devices."""
    loinc, unit = draw(st.sampled_from([("55423-8", "steps"), ("93832-4", "min")]))
    start, length = draw(st.integers(0, 60)), draw(st.integers(1, 30))
    period = {
        "start": f"2025-03-02T{start // 6:02}:{start % 6}0:00Z",
        "end": f"2025-03-02T{(start + length) // 6:02}:{(start + length) % 6}0:00Z",
    }
    value = quantity(draw(st.integers(1, 60)), unit)
    device = draw(st.sampled_from(DEVICES))
    named = {"device": {"display": device}} if device else {}
    whole = observation(loinc, valueQuantity=value, effectivePeriod=period, **named)
    del whole["effectiveDateTime"]
    return whole | subject(draw(people))


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    day = draw(st.integers(1, 3))
    ended = draw(st.sampled_from([{}, {"abatementDateTime": "2025-05-01"}]))
    return {
        "resourceType": "Condition",
        "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "F32.1"}]},
        "onsetDateTime": f"2025-01-0{day}",
        **ended,
        **subject(draw(people)),
    }


@st.composite
def drops(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Resources, some with ids and versions of which some are mistakes, some without."""
    resources = draw(st.lists(items() | spans() | conditions(), min_size=1, max_size=14))
    versions: dict[str, int] = {}
    for resource in resources:
        name = draw(st.sampled_from(["", "a", "b", "c"]))
        if name:
            key = f"{resource['resourceType']}/{name}"
            versions[key] = versions.get(key, 0) + 1
            resource["id"], resource["meta"] = name, {"versionId": str(versions[key])}
        if name and draw(st.integers(0, 4)) == 0:
            _mark_as_mistake(resource)
    return resources


def _mark_as_mistake(resource: dict[str, Any]) -> None:
    if resource["resourceType"] == "Condition":
        resource["verificationStatus"] = {"coding": [{"code": "entered-in-error"}]}
    else:
        resource["status"] = "entered-in-error"


def land(folder: Path, *parts: list[dict[str, Any]], rows: tuple[list[str], ...] = ()) -> Any:
    """Return the rows that drops land, one after the other, in a lake of their own."""
    lake = tempfile.mkdtemp(dir=folder)
    given = rows or tuple([] for _ in parts)
    for part, lines in zip(parts, given, strict=True):
        if part or lines:
            ingest_quietly(write_drop(folder, part, lines), lake, PEOPLE)
    return read_rows(lake)


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any_order")


def split(resources: list[Any], mask: int) -> tuple[list[Any], list[Any]]:
    ones = [one for number, one in enumerate(resources) if mask >> number & 1]
    return ones, [one for number, one in enumerate(resources) if not mask >> number & 1]


def remember(
    folder: Path, known: dict[str, pl.DataFrame], resources: list[dict[str, Any]]
) -> dict[str, pl.DataFrame]:
    """Return the records and retractions known after a drop, kept in memory."""
    (folder / "Observation.ndjson").write_text("\n".join(map(json.dumps, resources)))
    after = dict(known)
    met = [one for batch in read(folder) for one in batch.retractions]
    if met:
        after["retractions"] = pl.concat([known["retractions"], make_retractions(met)])
    for table in (SURVEYS, WEARABLE_DAYS, EMR_EVENTS):
        new = read_records(folder, table)
        old = known[table.name].with_columns(pid=pl.int_range(pl.len()) + 1000)
        current = choose_current(table, old, new.select(old.columns), after["retractions"], NOW)
        after[table.name] = current.records
    return after


def read_records(folder: Path, table: Table) -> pl.DataFrame:
    frames = [batch.rows[table.name] for batch in read(folder) if table.name in batch.rows]
    empty = pl.DataFrame(schema=schema_of_parts(table) | {"pid": pl.Int64})
    if not frames:
        return empty
    good = check_rows(table, pl.concat(frames), NOW).good
    slot = pl.col("instrument") if table is SURVEYS else pl.lit("")
    numbered = good.with_columns(
        pid=pl.int_range(pl.len()), ingested_at=pl.lit(NOW), slot=slot.alias("slot")
    )
    return numbered.select(pl.col(name).cast(kind) for name, kind in empty.schema.items())


def make_retractions(met: list[dict[str, Any]]) -> pl.DataFrame:
    values = [one | {"version_at": None, "retracted_at": NOW} for one in met]
    return pl.DataFrame(values, schema=RETRACTION_SCHEMA)


def join_all(folder: Path, *parts: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the rows that drops come to, one after the other."""
    names = {table.name: schema_of_parts(table) for table in (SURVEYS, WEARABLE_DAYS, EMR_EVENTS)}
    known = {
        name: pl.DataFrame(schema=schema | {"pid": pl.Int64}) for name, schema in names.items()
    }
    known["retractions"] = pl.DataFrame(schema=RETRACTION_SCHEMA)
    for part in parts:
        known = remember(folder, known, part)
    return {
        table.name: sorted(
            join_records(table, known[table.name])
            .rows.select("anonymized_id", *table.columns)
            .with_columns(pl.col(pl.Float32).round(3))
            .rows(),
            key=str,
        )
        for table in (SURVEYS, WEARABLE_DAYS, EMR_EVENTS)
    }


@settings(max_examples=10, deadline=None)
@given(drops(), st.integers(0, 2**14))
def test_records_join_alike_however_they_are_divided(
    tmp_path_factory: pytest.TempPathFactory, resources: list[dict[str, Any]], mask: int
) -> None:
    folder = tmp_path_factory.mktemp("records")
    first, second = split(resources, mask)
    whole = join_all(folder, resources)
    assert join_all(folder, first, second) == whole
    assert join_all(folder, second, first) == whole
    assert join_all(folder, resources, resources) == whole


@settings(max_examples=6, deadline=None)
@given(st.lists(items() | spans() | conditions(), min_size=1, max_size=8), conditions() | spans())
def test_a_retracted_record_leaves_what_was_there_without_it(
    tmp_path_factory: pytest.TempPathFactory,
    resources: list[dict[str, Any]],
    mistake: dict[str, Any],
) -> None:
    folder = tmp_path_factory.mktemp("records")
    wrong = mistake | {"id": "wrong"}
    without = join_all(folder, resources)
    assert join_all(folder, resources, [wrong], [_delete(wrong)]) == without
    assert join_all(folder, [_delete(wrong)], [wrong], resources) == without


def _delete(resource: dict[str, Any]) -> dict[str, Any]:
    url = f"{resource['resourceType']}/{resource['id']}"
    entry = {"request": {"method": "DELETE", "url": url}}
    return {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}


@pytest.mark.nightly
@settings(max_examples=40, deadline=None)
@given(drops(), st.integers(0, 2**14))
def test_any_split_of_a_drop_in_any_order_lands_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, resources: list[dict[str, Any]], mask: int
) -> None:
    folder = tmp_path_factory.mktemp("split")
    first, second = split(resources, mask)
    whole = land(folder, resources)
    assert land(folder, first, second) == whole
    assert land(folder, second, first) == whole


@pytest.mark.nightly
@settings(max_examples=20, deadline=None)
@given(drops())
def test_ingesting_twice_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, resources: list[dict[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("twice")
    lake = tempfile.mkdtemp(dir=folder)
    drop = write_drop(folder, resources)
    ingest_quietly(drop, lake, PEOPLE)
    before = read_rows(lake)
    report = ingest_quietly(drop, lake, PEOPLE)
    assert read_rows(lake) == before
    assert sum(counts.landed for counts in report.tables.values()) == 0
    assert sum(counts.set_aside + counts.recomputed for counts in report.tables.values()) == 0


@pytest.mark.nightly
@settings(max_examples=20, deadline=None)
@given(st.lists(items() | spans() | conditions(), min_size=1, max_size=8), conditions() | spans())
def test_a_retraction_restores_what_stood_before(
    tmp_path_factory: pytest.TempPathFactory,
    resources: list[dict[str, Any]],
    mistake: dict[str, Any],
) -> None:
    folder = tmp_path_factory.mktemp("retracted")
    wrong = mistake | {"id": "wrong"}
    deleted = _delete(wrong)
    assert land(folder, resources, [wrong], [deleted]) == land(folder, resources)
    assert land(folder, [deleted], [wrong], resources) == land(folder, resources)


columns = st.sampled_from(["2025-03-03,{},,", "2025-03-03,,{},", "2025-03-04,,,{}"])


@pytest.mark.nightly
@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(people, columns), max_size=6, unique=True), spans(), st.integers(0, 63))
def test_rows_of_table_files_add_to_each_other_and_to_resources(
    tmp_path_factory: pytest.TempPathFactory,
    cells: list[tuple[str, str]],
    reading: dict[str, Any],
    mask: int,
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    rows = [f"{person},{column.format(100)}" for person, column in cells]
    first, second = split(rows, mask)
    whole = land(folder, [reading], rows=(rows,))
    assert land(folder, [reading], [], rows=(first, second)) == whole
    assert land(folder, [], [reading], rows=(second, first)) == whole


def test_a_panel_joins_its_items_whichever_comes_first(folder: Path) -> None:
    given = {f"i{n}": loinc for n, loinc in enumerate(PHQ9.item_loincs)}
    one_by_one = [
        observation(loinc, f"2025-03-01T1{n}:00:00Z", id=name, valueInteger=1)
        for n, (name, loinc) in enumerate(given.items())
    ]
    panel = observation(
        "44249-1",
        "2025-03-01T19:00:00Z",
        id="panel",
        hasMember=[{"reference": f"Observation/{name}"} for name in given],
    )
    whole = land(folder, [*one_by_one, panel])
    assert [row[3:12] for row in whole["surveys"]] == [(1,) * 9]
    assert land(folder, [panel], one_by_one) == land(folder, one_by_one, [panel]) == whole
