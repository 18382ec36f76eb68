"""Answers and dates as files write them, read by the checks that every row meets."""

import math
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, TypeVar

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.sources.clean import Checked, check_rows
from flows.sources.contract import (
    CONSENTS,
    EMR_EVENTS,
    ITEM_COLUMNS,
    OUTCOMES,
    PEOPLE,
    SURVEYS,
    TABLES,
    WEARABLE_CHANNELS,
    WEARABLE_DAYS,
    WEARABLE_LIMITS,
    Table,
)
from flows.sources.pseudonymise import PersonKey

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
quick = settings(max_examples=10, deadline=None)

Value = TypeVar("Value")


def many(values: st.SearchStrategy[Value]) -> st.SearchStrategy[list[Value]]:
    """Several values at once: a check takes as long for one row as for twenty."""
    return st.lists(values, min_size=1, max_size=20)


KEY = PersonKey("a salt for tests, 256 bit or more of it")

GOOD: dict[str, dict[str, object]] = {
    "people": {"birth_date": "1980-02-29", "sex": "female"},
    "surveys": {"instrument": "PHQ-9", "answered_at": "2025-01-01T10:00:00Z"}
    | dict.fromkeys(ITEM_COLUMNS, "1"),
    "wearable_days": {"date": "2025-01-01", "steps": "100"},
    "emr_events": {"kind": "diagnosis", "system": "s", "code": "c", "started_at": "2025-01-01"},
    "consents": {
        "data_types": "survey",
        "purposes": "training",
        "granted_at": "2025-01-01",
        "expires_at": "2026-01-01",
    },
    "outcomes": {"index_date": "2025-01-01", "outcome": "1"},
}


def check(table: Table, **values: object) -> Checked:
    """Check one good row of a table with these values instead."""
    row = GOOD.get(table.name, {}) | {"person_id": "someone", "row_number": 1} | values
    return check_rows(table, KEY.replace_identifiers(pl.DataFrame([row])), NOW)


def check_column(table: Table, column: str, values: list[Any] | pl.Series) -> Checked:
    """Check as many good rows of a table, numbered from 0, with these values in a column."""
    row = GOOD[table.name] | {"person_id": "someone"}
    rows = pl.DataFrame([row] * len(values)).with_row_index("row_number")
    rows = rows.with_columns(pl.Series(values).alias(column))
    return check_rows(table, KEY.replace_identifiers(rows), NOW)


def read(table: Table, column: str, value: object) -> object:
    checked = check(table, **{column: value})
    assert checked.rejected.rows() == []
    return checked.good[column][0]


def reason(table: Table, **values: object) -> str:
    checked = check(table, **values)
    assert checked.good.is_empty()
    return str(checked.rejected["reason"][0])


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_a_row_without_a_person_is_rejected(table: Table) -> None:
    assert reason(table, person_id="  ") == "person_id: is missing"
    assert reason(table, person_id=None) == "person_id: is missing"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("4", "item_3: is 4, allowed are 0 to 3"),
        ("-1", "item_3: is -1, allowed are 0 to 3"),
        ("1.5", "item_3: is 1.5, allowed are 0 to 3"),
        ("x", "item_3: is not a number, allowed are 0 to 3"),
        ("inf", "item_3: is a number of several digits, allowed are 0 to 3"),
        ("1234567", "item_3: is a number of several digits, allowed are 0 to 3"),
    ],
)
def test_an_impossible_answer_is_rejected_by_column_and_rule(value: str, expected: str) -> None:
    assert reason(SURVEYS, item_3=value) == expected


def test_a_text_in_the_place_of_an_answer_is_not_repeated() -> None:
    assert "Jane" not in reason(SURVEYS, item_3="Jane Doe, born 1980")


@pytest.mark.parametrize(
    ("table", "column"),
    [
        (SURVEYS, "answered_at"),
        (WEARABLE_DAYS, "date"),
        (EMR_EVENTS, "started_at"),
        (CONSENTS, "granted_at"),
        (OUTCOMES, "index_date"),
        (PEOPLE, "birth_date"),
    ],
)
def test_no_date_may_lie_in_the_future_or_before_1900(table: Table, column: str) -> None:
    assert f"{column}: is in the future" in reason(table, **{column: "2199-01-01"})
    assert f"{column}: is before 1900" in reason(table, **{column: "1899-12-31"})
    assert f"{column}: is not an ISO 8601" in reason(table, **{column: "2025-02-30"})
    assert f"{column}: is not an ISO 8601" in reason(table, **{column: "03/04/2025"})


@pytest.mark.parametrize("table", [SURVEYS, WEARABLE_DAYS, EMR_EVENTS, CONSENTS, OUTCOMES])
def test_what_identifies_a_row_may_not_be_missing(table: Table) -> None:
    for column in table.key:
        assert f"{column}: is missing" in reason(table, **{column: ""})


def test_a_clock_that_is_a_few_hours_ahead_is_no_error() -> None:
    assert read(SURVEYS, "answered_at", "2025-06-02T11:00:00Z") == NOW + timedelta(hours=23)


@quick
@given(many(st.tuples(st.integers(0, 3), st.sampled_from(["{}", "{}.0", " {} ", "0{}", "+{}"]))))
def test_an_answer_is_read_however_it_is_written(written: list[tuple[int, str]]) -> None:
    checked = check_column(SURVEYS, "item_9", [form.format(answer) for answer, form in written])
    assert checked.good["item_9"].to_list() == [answer for answer, _ in written]


@quick
@given(many(st.one_of(st.floats(), st.integers(-(10**6), 10**6).map(float))))
def test_a_number_is_an_answer_exactly_if_it_is_one_of_the_four(numbers: list[float]) -> None:
    checked = check_column(SURVEYS, "item_1", numbers)
    assert dict(checked.good.select("row_number", "item_1").iter_rows()) == {
        place: None if math.isnan(number) else number
        for place, number in enumerate(numbers)
        if math.isnan(number) or number in (0, 1, 2, 3)
    }


@quick
@given(many(st.text(max_size=12)))
def test_no_text_breaks_the_reading_of_an_answer(texts: list[str]) -> None:
    checked = check_column(SURVEYS, "item_1", texts)
    assert checked.good.height + checked.rejected.height == len(texts)
    assert set(checked.good["item_1"]) <= {None, 0, 1, 2, 3}


offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
instants = many(st.datetimes(datetime(1900, 1, 3), datetime(2025, 5, 30), timezones=offsets))


@quick
@given(instants)
def test_an_iso_instant_is_the_same_moment_in_utc(instants: list[datetime]) -> None:
    written = [instant.isoformat() for instant in instants]
    assert check_column(SURVEYS, "answered_at", written).good["answered_at"].to_list() == instants


@quick
@given(instants)
def test_a_time_without_a_zone_is_utc(instants: list[datetime]) -> None:
    local = [instant.replace(tzinfo=None) for instant in instants]
    checked = check_column(SURVEYS, "answered_at", [one.isoformat(sep=" ") for one in local])
    assert checked.good["answered_at"].to_list() == [one.replace(tzinfo=UTC) for one in local]


@quick
@given(instants)
def test_typed_and_written_instants_are_read_alike(instants: list[datetime]) -> None:
    dtype = pl.Datetime("ns", "Europe/Berlin")
    typed = pl.Series([instant.astimezone(UTC) for instant in instants], dtype=dtype)
    assert check_column(SURVEYS, "answered_at", typed).good["answered_at"].to_list() == instants


@quick
@given(many(st.text(max_size=25)))
def test_no_text_breaks_the_reading_of_an_instant(texts: list[str]) -> None:
    checked = check_column(SURVEYS, "answered_at", texts)
    assert checked.good.height + checked.rejected.height == len(texts)


@quick
@given(many(st.dates(date(1900, 1, 1), date(2025, 6, 1))))
def test_only_the_year_of_birth_lands(days: list[date]) -> None:
    written = [form for day in days for form in (day.isoformat(), f"{day:%Y-%m}", str(day.year))]
    checked = check_column(PEOPLE, "birth_date", written)
    assert checked.good["birth_year"].to_list() == [day.year for day in days for _ in range(3)]
    assert "birth_date" not in checked.good.columns


def test_the_day_of_a_wearable_reading_is_the_one_that_is_written() -> None:
    assert read(WEARABLE_DAYS, "date", "2025-01-01T23:30:00-08:00") == date(2025, 1, 1)


@pytest.mark.parametrize("channel", WEARABLE_CHANNELS)
def test_a_reading_outside_what_a_day_can_hold_is_rejected(channel: str) -> None:
    low, high, _ = WEARABLE_LIMITS[channel]
    assert read(WEARABLE_DAYS, channel, str(high)) == high
    assert read(WEARABLE_DAYS, channel, float("nan")) is None
    assert reason(WEARABLE_DAYS, **{channel: high + 1}).startswith(f"{channel}: is outside")
    assert reason(WEARABLE_DAYS, **{channel: low - 1}).startswith(f"{channel}: is outside")


@pytest.mark.parametrize("name", ["PHQ-9", "phq9", "PHQ_9", "gad 7"])
def test_an_instrument_may_be_written_without_its_hyphen(name: str) -> None:
    values = {"instrument": name, "item_8": None, "item_9": None}
    assert check(SURVEYS, **values).good["instrument"][0] in ("PHQ-9", "GAD-7")


def test_a_gad7_has_no_eighth_item() -> None:
    assert reason(SURVEYS, instrument="GAD-7", item_9=None) == "item_8: GAD-7 has 7 items"


def test_an_unknown_instrument_is_rejected() -> None:
    assert reason(SURVEYS, instrument="PHQ-3").startswith("instrument: is not one of PHQ-9, GAD-7")


@pytest.mark.parametrize(
    ("table", "column", "value", "rule"),
    [
        (PEOPLE, "ethnicity", "born 1907-03-14", "is no category of letters, at most 64"),
        (PEOPLE, "ethnicity", "jane@ward.example", "is no category of letters, at most 64"),
        (PEOPLE, "ethnicity", "a" * 65, "is no category of letters, at most 64"),
        (EMR_EVENTS, "code", "Jane Doe", "is no code without spaces, at most 64 characters"),
        (EMR_EVENTS, "code", "1" * 65, "is no code without spaces, at most 64 characters"),
        (EMR_EVENTS, "code", "j@w.example", "is no code without spaces, at most 64 characters"),
        (EMR_EVENTS, "system", "u" * 201, "is no URI, OID or name, at most 200 characters"),
        (EMR_EVENTS, "system", "Flat 4, Q", "is no URI, OID or name, at most 200 characters"),
    ],
)
def test_free_text_in_the_place_of_a_code_is_rejected_and_not_repeated(
    table: Table, column: str, value: str, rule: str
) -> None:
    assert reason(table, **{column: value}) == f"{column}: {rule}"


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        (PEOPLE, "ethnicity", "Black / African-American (Caribbean)"),
        (PEOPLE, "ethnicity", "2135-2"),
        (EMR_EVENTS, "code", "F32.1+"),
        (EMR_EVENTS, "code", "E2B.."),
        (EMR_EVENTS, "code", "A17.0†"),
        (EMR_EVENTS, "system", "urn:oid:2.16.840.1.113883.6.90"),
        (EMR_EVENTS, "system", "http://hl7.org/fhir/sid/icd-10-pcs"),
        (EMR_EVENTS, "system", "2.16.840.1.113883.6.90"),
        (EMR_EVENTS, "system", "ICD 10 CM"),
    ],
)
def test_categories_systems_and_codes_are_read_as_written(
    table: Table, column: str, value: str
) -> None:
    assert read(table, column, value) == value


def test_an_event_ends_after_it_starts_and_only_encounters_have_a_setting() -> None:
    assert reason(EMR_EVENTS, ended_at="2024-12-31") == "ended_at: is before started_at"
    assert reason(EMR_EVENTS, setting="inpatient") == "setting: only an encounter has one"
    assert "setting: is not one of" in reason(EMR_EVENTS, kind="encounter", setting="ward 7")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"data_types": ""}, "data_types: is missing"),
        ({"data_types": "survey;genome"}, "data_types: has a term other than"),
        ({"purposes": []}, "purposes: is missing"),
        ({"purposes": ["marketing"]}, "purposes: has a term other than"),
        ({"expires_at": "2024-01-01"}, "expires_at: is not after granted_at"),
        ({"expires_at": ""}, "expires_at: is missing"),
    ],
)
def test_a_consent_is_read_strictly(values: dict[str, object], expected: str) -> None:
    assert reason(CONSENTS, **values).startswith(expected)


def test_consent_terms_may_be_a_list_or_a_text() -> None:
    assert list(read(CONSENTS, "data_types", "Survey; emr;")) == ["emr", "survey"]
    assert list(read(CONSENTS, "data_types", ["survey", "emr"])) == ["emr", "survey"]


@pytest.mark.parametrize(
    ("written", "truth"), [("true", True), ("0", False), (True, True), (1, True)]
)
def test_an_outcome_is_true_or_false(written: object, truth: bool) -> None:
    assert read(OUTCOMES, "outcome", written) is truth
    assert "outcome: is not true or false" in reason(OUTCOMES, outcome="perhaps")


def test_a_row_is_available_since_the_event_and_a_day_since_its_end() -> None:
    def available(table: Table, **values: object) -> object:
        return check(table, **values).good["available_at"][0]

    assert available(SURVEYS) == datetime(2025, 1, 1, 10, tzinfo=UTC)
    assert available(WEARABLE_DAYS) == datetime(2025, 1, 2, tzinfo=UTC)
    assert available(EMR_EVENTS, recorded_at="2025-02-01") == datetime(2025, 2, 1, tzinfo=UTC)
    assert available(PEOPLE, birth_date="") == datetime(1900, 1, 1, tzinfo=UTC)


def test_whole_numbers_stored_as_floats_name_the_same_person() -> None:
    as_float = KEY.replace_identifiers(pl.DataFrame({"person_id": [93705.0, None]}))
    as_text = KEY.replace_identifiers(pl.DataFrame({"person_id": ["93705", None]}))
    assert as_float.equals(as_text)
