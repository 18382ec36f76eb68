"""Shapes of data that people bring, one folder each, and what must become of them.

The folders lie beside the project (`../shared/cases/ingestion`); inputs of our own for the same
kinds are in the tests of readers and lake.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from sqlalchemy import select

from flows.ingestion import ingest
from flows.lake.report import IngestionFailedError, IngestionReport
from flows.sources.contract import ITEM_COLUMNS
from serving.database.tables import Consent
from tests.fixtures.ingestion import World, name, world

__all__ = ["world"]

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases" / "ingestion"


@dataclass
class Outcome:
    """What one case came to: reports and failures of its drops, and the lake after them."""

    world: World
    names: dict[str, str]
    reports: list[IngestionReport] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def last(self) -> IngestionReport:
        return self.reports[-1]

    @property
    def notes(self) -> str:
        return " ".join(note for report in self.reports for note in report.notes)

    @property
    def reasons(self) -> list[str]:
        return [reason for *_, reason in self.world.read_quarantine()]

    def rows(self, table: str) -> list[dict[str, Any]]:
        rows = self.world.read(table).sort("anonymized_id").to_dicts()
        return [row | {"who": self.names.get(row["anonymized_id"])} for row in rows]

    def totals(self) -> dict[tuple[str | None, str], int | None]:
        """Return the sum of items by person and instrument, None where one is missing."""
        items = {
            (row["who"], row["instrument"]): [row[item] for item in ITEM_COLUMNS]
            for row in self.rows("surveys")
        }
        return {
            key: None if all(one is None for one in given) else sum(one or 0 for one in given)
            for key, given in items.items()
        }

    def channel(self, channel: str) -> dict[str | None, float | None]:
        return {row["who"]: row[channel] for row in self.rows("wearable_days")}

    def consents(self) -> dict[str | None, set[str]]:
        """Return the data types of consents that are not withdrawn, by person."""

        def read(session: Any) -> list[tuple[str, list[str]]]:
            given = session.scalars(select(Consent).where(Consent.withdrawn_at.is_(None)))
            return [(one.anonymized_id, list(one.data_types)) for one in given]

        allowed: dict[str | None, set[str]] = {}
        for person, types in self.world.change_database(read):
            allowed.setdefault(self.names.get(person), set()).update(types)
        return allowed


Check = Callable[[Outcome], None]
CHECKS: dict[str, Check] = {}


def case(folder: str) -> Callable[[Check], Check]:
    def remember(check: Check) -> Check:
        CHECKS[folder] = check
        return check

    return remember


@pytest.mark.parametrize("folder", sorted(CASES.iterdir()) if CASES.is_dir() else [None])
def test_a_case_comes_to_what_is_right(folder: Path | None, world: World) -> None:
    if folder is None:
        pytest.skip("the shared cases are not beside this checkout")
    people = (folder / "IDS").read_text(encoding="utf-8").split()
    outcome = Outcome(world, {name(person): person for person in people})
    for drop in ("drop", "drop2"):
        if (folder / drop).is_dir():
            _ingest(outcome, folder / drop)
    CHECKS[folder.name](outcome)


def _ingest(outcome: Outcome, drop: Path) -> None:
    try:
        report, failure = ingest(str(drop)), ""
    except IngestionFailedError as error:
        report, failure = error.report, str(error)
    outcome.reports.append(report)
    outcome.failures.append(failure)


@case("01_incremental_readings")
def _(found: Outcome) -> None:
    assert found.channel("steps") == {"a": 3500}


@case("02_incremental_channels")
def _(found: Outcome) -> None:
    (day,) = found.rows("wearable_days")
    assert (day["sleep_minutes"], day["resting_heart_rate"]) == (420, 60)
    assert day["available_at"].date().isoformat() == "2025-03-04"


@case("04_csv_second_device")
def _(found: Outcome) -> None:
    (day,) = found.rows("wearable_days")
    assert (day["steps"], day["sleep_minutes"], day["hrv_rmssd"]) == (8000, 420, 45)


@case("05_items_seconds_apart")
def _(found: Outcome) -> None:
    assert found.totals() == {("tess-101", "PHQ-9"): 18}


@case("06_phq2_after_phq9")
def _(found: Outcome) -> None:
    assert found.totals() == {("k-1", "PHQ-9"): 27, ("k-1", "PHQ-2"): 0}


@case("07_items_under_answer")
def _(found: Outcome) -> None:
    assert found.totals() == {("tess-101", "PHQ-9"): 19}


@case("08_item_twice")
def _(found: Outcome) -> None:
    assert found.totals() == {("tess-102", "PHQ-9"): 13}
    assert found.reasons == ["item_1: has two different answers in one response"]


@case("10_retracted_after_landing")
@case("11_bulk_deleted")
def _(found: Outcome) -> None:
    assert found.rows("surveys") == []
    assert found.last.tables["surveys"].set_aside == 1


@case("13_utf16_withdrawal")
def _(found: Outcome) -> None:
    assert found.consents() == {}
    assert found.rows("surveys") == []
    assert found.last.records == 2


@case("14_undated_withdrawal")
def _(found: Outcome) -> None:
    assert "c-29" not in found.consents()
    assert len(found.consents()) == 29
    assert found.rows("surveys") == []


@case("15_consent_narrowed")
def _(found: Outcome) -> None:
    assert found.consents() == {"w3": {"survey"}, "w4": {"survey"}}


@case("17_mii_broad_consent")
def _(found: Outcome) -> None:
    assert found.reasons[0].startswith("provision.class: names none of")
    assert found.last.tables["withdrawals"].read == 0


@case("18_day_period_to_next_midnight")
def _(found: Outcome) -> None:
    days = {
        str(row["date"]): (row["steps"], row["resting_heart_rate"])
        for row in found.rows("wearable_days")
    }
    assert days == {"2025-03-03": (7000, 60), "2025-03-04": (8000, 61)}


@case("19_parquet_tz_dates")
def _(found: Outcome) -> None:
    assert {str(row["date"]) for row in found.rows("wearable_days")} == {"2025-03-03"}
    assert {str(row["index_date"]) for row in found.rows("outcomes")} == {"2025-03-03"}
    assert len(found.rows("wearable_days")) == 4


@case("20_two_devices_same_steps")
def _(found: Outcome) -> None:
    assert found.channel("steps") == {"tess-101": 5150}


@case("22_corrected_observation_summed")
def _(found: Outcome) -> None:
    assert found.channel("steps") == {"v-1": 3000}
    assert found.last.tables["wearable_days"].superseded == 1


@case("23_week_total_on_one_day")
def _(found: Outcome) -> None:
    assert found.channel("steps") == {"h-1": 1200, "h-3": 7000, "h-5": None}
    assert found.channel("sleep_minutes")["h-5"] == 480
    assert found.reasons == ["effectivePeriod: is longer than a day"]


@case("24_conditions_stu3_and_text")
def _(found: Outcome) -> None:
    started = {row["who"]: row["started_at"].year for row in found.rows("emr_events")}
    assert started == {"res": 2019, "y1": 2015}
    assert found.last.ignored == {"Condition that is entered-in-error": 1}


@case("25_encounter_class")
def _(found: Outcome) -> None:
    settings = {row["who"]: row["setting"] for row in found.rows("emr_events")}
    assert settings == {"r5": "inpatient", "d2": "inpatient", "no": "inpatient", "ep": None}
    assert sum(found.last.noted.values()) == 1


@case("27_medication_not_to_be_given")
def _(found: Outcome) -> None:
    assert {row["who"] for row in found.rows("emr_events")} == {"st", "r5"}
    assert sum(found.last.ignored.values()) == 2


@case("29_icd10_gm")
def _(found: Outcome) -> None:
    (event,) = found.rows("emr_events")
    assert (event["who"], event["code"]) == ("k-1", "F32.1")
    assert sum(found.last.ignored.values()) == 2


@case("30_wear_time_zero")
def _(found: Outcome) -> None:
    worn = [row["steps"] for row in found.rows("wearable_days") if row["wear_minutes"]]
    assert worn == [9000, 9000, 9000]  # features leave out the others: test_windows.py


@case("31_items_coded_1_to_4")
def _(found: Outcome) -> None:
    assert found.rows("surveys") == []
    assert "items of PHQ-9 run from 1 to 4" in found.failures[0]


@case("34_na_person")
def _(found: Outcome) -> None:
    assert {row["who"] for row in found.rows("people")} == {"101", "102"}
    assert found.reasons.count("person_id: is missing") == 4
    assert found.reasons.count("code: is missing") == 1
    assert [row["steps"] for row in found.rows("wearable_days")].count(None) == 2


@case("35_float_and_zero_ids")
def _(found: Outcome) -> None:
    assert found.totals() == {("93705", "PHQ-9"): 9}
    assert found.last.tables["surveys"].withheld == 1


@case("36_cr_only_csv")
def _(found: Outcome) -> None:
    assert len(found.rows("surveys")) == 2


@case("38_encrypted_zip")
def _(found: Outcome) -> None:
    assert "is encrypted" in found.failures[0]
    assert len(found.rows("people")) == 1


@case("40_deep_json")
def _(found: Outcome) -> None:
    assert found.reasons == ["line: is nested too deeply"]
    assert len(found.rows("people")) == 1


@case("41_lone_surrogate")
def _(found: Outcome) -> None:
    assert found.reasons == ["line: holds half of a character (a lone surrogate)"]
    assert len(found.rows("emr_events")) == 1


@case("42_mac_zip")
def _(found: Outcome) -> None:
    assert found.totals() == {("tess-101", "PHQ-9"): 9}


@case("43_zip_of_csv")
def _(found: Outcome) -> None:
    assert len(found.rows("people")) == 1
    assert ".zip: the compressed stream is damaged" in found.failures[0]


@case("45_file_names")
def _(found: Outcome) -> None:
    assert {who for who, _ in found.totals()} == {"101", "102"}
    assert found.channel("steps") == {"101": 1}
    assert "a .tsv file whose name begins with emr_events was passed over" in found.notes


@case("47_panel_in_linkid")
def _(found: Outcome) -> None:
    assert found.totals() == {("tess-101", "PHQ-9"): 18}


@case("48_own_linkids")
def _(found: Outcome) -> None:
    assert len(found.reasons) == 2
    assert all("put the Questionnaire" in reason for reason in found.reasons)
    assert found.failures[0]


@case("49_answer_forms")
def _(found: Outcome) -> None:
    totals = {who: total for (who, _), total in found.totals().items()}
    assert totals == {"f1": 9, "f2": 9, "f3": 18, "f4": 18, "f5": 18}


@case("51_total_only")
def _(found: Outcome) -> None:
    stated = {(row["who"], row["instrument"]): row["total"] for row in found.rows("surveys")}
    assert stated == {("tess-101", "PHQ-9"): 18, ("tess-102", "PHQ-9"): 18}


@case("54_panel_total_not_checked")
def _(found: Outcome) -> None:
    items = {row["who"]: row["item_9"] for row in found.rows("surveys")}
    assert items == {"k-1": None, "k-2": 3}
    assert "PHQ-9 total: 2 is stated, the items add to 11" in found.reasons


@case("55_merged_and_deceased")
def _(found: Outcome) -> None:
    assert {row["who"] for row in found.rows("people")} == {"new-9", "dead-1"}
    assert [row["who"] for row in found.rows("surveys")] == ["new-9", "new-9"]
    assert "people whose id another replaces: 1" in found.notes
    assert sum(found.last.noted.values()) == 1
    assert _read_purposes(found)["dead-1"] == {"training"}


def _read_purposes(found: Outcome) -> dict[str | None, set[str]]:
    def read(session: Any) -> Iterator[tuple[str, list[str]]]:
        return ((one.anonymized_id, one.purposes) for one in session.scalars(select(Consent)).all())

    return {
        found.names.get(person): set(purposes)
        for person, purposes in found.world.change_database(lambda session: list(read(session)))
    }


@case("56_post_transaction_without_ids")
def _(found: Outcome) -> None:
    assert len(found.rows("people")) == len(found.rows("surveys")) == 1


@case("58_excel_european")
def _(found: Outcome) -> None:
    for table in ("people", "surveys", "wearable_days", "emr_events"):
        assert [row["who"] for row in found.rows(table)] == ["101"], table
    assert "outcomes.csv: row 2, column note, is not UTF-8" in found.failures[0]
    assert "cp1252" in found.failures[0]


@case("59_quote_in_unread_column")
def _(found: Outcome) -> None:
    assert {who for who, _ in found.totals()} == {"a", "b", "c"}


@case("60_step_units")
def _(found: Outcome) -> None:
    assert found.last.tables["wearable_days"].quarantined == 0
    steps = {who: value for who, value in found.channel("steps").items() if value is not None}
    assert steps == {"q-0": 8520, "q-1": 7500, "q-2": 7000, "q-3": 700, "q-4": 7000}


@case("62_next_page_missing")
def _(found: Outcome) -> None:
    assert "holds 2 of 57 entries; the next page is not in the drop" in found.notes


@case("63_unicode_ids")
def _(found: Outcome) -> None:
    assert pl.Series([row["who"] for row in found.rows("surveys")]).value_counts().height == 2
    assert len(found.rows("surveys")) == 4
