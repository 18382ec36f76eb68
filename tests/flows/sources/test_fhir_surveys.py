"""Questionnaires and wearable readings in FHIR."""

from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from feature_repo.instruments import GAD7, PHQ9
from flows.sources.contract import ITEM_COLUMNS
from tests.fixtures.fhir import (
    KEY,
    LOINC,
    code,
    join,
    observation,
    quantity,
    read,
    reasons,
    response,
    rows_of,
    write,
)

ANSWERS: list[dict[str, Any]] = [
    {"valueCoding": {"system": LOINC, "code": "LA6570-1"}},
    {"valueInteger": 2},
    {"valueDecimal": 2.0},
    {
        "valueCoding": {
            "code": "more-than-half",
            "extension": [
                {
                    "url": "http://hl7.org/fhir/StructureDefinition/ordinalValue",
                    "valueDecimal": 2,
                }
            ],
        }
    },
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_may_be_a_code_a_number_or_an_ordinal(
    tmp_path: Path, answer: dict[str, Any]
) -> None:
    write(tmp_path, response({PHQ9.item_loincs[8]: answer}))
    (row,) = rows_of(tmp_path, "surveys")
    assert (row["instrument"], row["item_9"], row["item_1"]) == ("PHQ-9", 2, None)
    assert row["anonymized_id"] == KEY.pseudonymise("p1")


def test_a_total_that_is_not_the_sum_of_its_items_is_rejected(tmp_path: Path) -> None:
    answers: dict[str, dict[str, Any]] = {code: {"valueInteger": 1} for code in GAD7.item_loincs}
    wrong = response(answers | {GAD7.total_codes[0][1]: {"valueDecimal": 8}})
    assert reasons(tmp_path, wrong) == ["GAD-7 total: 8 is stated, the items add to 7"]


def test_one_response_with_both_questionnaires_gives_two_surveys(tmp_path: Path) -> None:
    both = {loinc: {"valueInteger": 1} for loinc in (*PHQ9.item_loincs, *GAD7.item_loincs)}
    (batch,) = read(write(tmp_path, response(both)))
    assert sorted(batch.rows["surveys"]["instrument"]) == ["GAD-7", "PHQ-9"]
    assert (batch.records, batch.split) == (1, 1)


def test_nested_items_are_found(tmp_path: Path) -> None:
    nested = response({})
    inner = response({PHQ9.item_loincs[0]: {"valueInteger": 3}})["item"]
    nested["item"] = [{"linkId": "group", "item": inner}]
    (row,) = rows_of(write(tmp_path, nested), "surveys")
    assert row["item_1"] == 3


def test_single_answers_of_one_time_make_one_survey(tmp_path: Path) -> None:
    items = [observation(loinc, valueInteger=1) for loinc in PHQ9.item_loincs]
    other = observation(PHQ9.item_loincs[0], at="2025-02-01", valueInteger=3)
    panel = observation(PHQ9.panel_codes[0][1], hasMember=[{"reference": "Observation/x"}])
    joined = join(write(tmp_path, *items, panel, other), "surveys")
    totals = joined.rows.sort("answered_at").select(pl.sum_horizontal(ITEM_COLUMNS)).to_series()
    assert totals.to_list() == [9, 3]
    assert (joined.combined, joined.duplicate, joined.rejected.height) == (9, 0, 0)


def test_a_panel_may_hold_its_answers_as_components(tmp_path: Path) -> None:
    parts = [{"code": code(loinc), "valueInteger": 2} for loinc in GAD7.item_loincs]
    joined = join(write(tmp_path, observation(GAD7.panel_codes[0][1], component=parts)), "surveys")
    assert joined.rows.select(ITEM_COLUMNS).row(0) == (*[2] * 7, None, None)


def test_contradicting_or_absent_answers_are_not_guessed(tmp_path: Path) -> None:
    twice = [observation("44260-8", valueInteger=answer) for answer in (0, 3)]
    empty = observation("44249-1", at="2025-02-01", dataAbsentReason=code("x"))
    joined = join(write(tmp_path, *twice, empty), "surveys")
    assert joined.rows.is_empty()
    assert sorted(joined.rejected["reason"]) == [
        "different answers to one item at one time",
        "different answers to one item at one time",
        "no item of this survey has an answer",
    ]


def test_readings_of_a_day_become_one_row_in_the_units_of_the_contract(tmp_path: Path) -> None:
    night = {"start": "2024-12-31T23:00:00+01:00", "end": "2025-01-01T06:00:00+01:00"}
    sleep = observation("93832-4", valueQuantity=quantity(6.5, "h"), effectivePeriod=night)
    del sleep["effectiveDateTime"]
    hrv = observation("80404-7", valueQuantity=quantity(0.04, "s"))
    hrv["code"]["text"] = "HRV (RMSSD)"
    nap = observation("93832-4", at="2025-01-01T15:00:00Z", valueQuantity=quantity(1800, "s"))
    pulse = [
        observation(
            "40443-4", at=f"2025-01-01T0{hour}:00:00Z", valueQuantity=quantity(60 + hour, "/min")
        )
        for hour in (0, 4)
    ]
    steps = [
        observation(
            "55423-8", at=f"2025-01-01T1{hour}:00:00Z", valueQuantity=quantity(500, "{steps}")
        )
        for hour in range(4)
    ]
    joined = join(write(tmp_path, sleep, nap, hrv, *pulse, *steps, steps[0]), "wearable_days")
    (row,) = joined.rows.to_dicts()
    assert str(row["date"]) == "2025-01-01"
    assert row["sleep_minutes"] == 420
    assert row["hrv_rmssd"] == 40
    assert row["resting_heart_rate"] == 62
    assert row["steps"] == 2000
    assert row["wear_minutes"] is None
    assert (joined.combined, joined.duplicate) == (8, 1)


def test_the_devices_own_total_of_the_day_goes_before_the_sum(tmp_path: Path) -> None:
    part = observation("55423-8", valueQuantity=quantity(500, "{steps}"))
    total = observation("41950-7", at="2025-01-01", valueQuantity=quantity(9000, "{steps}/(24.h)"))
    joined = join(write(tmp_path, part, total), "wearable_days")
    assert joined.rows["steps"].to_list() == [9000]


def test_a_unit_that_is_not_known_is_never_guessed(tmp_path: Path) -> None:
    (reason,) = reasons(tmp_path, observation("93832-4", valueQuantity=quantity(7, "furlong")))
    assert reason.startswith("valueQuantity.code: is not one of min")
    (reason,) = reasons(tmp_path, observation("93832-4", valueQuantity={"value": 7}))
    assert reason.startswith("valueQuantity.code: is not one of min")


def test_sdnn_is_not_taken_for_rmssd(tmp_path: Path) -> None:
    (batch,) = read(write(tmp_path, observation("80404-7", valueQuantity=quantity(40, "ms"))))
    assert batch.ignored == Counter({"Observation with another code": 1})


def test_a_day_whose_sum_is_impossible_is_refused_whole(tmp_path: Path) -> None:
    naps = [
        observation("93832-4", at=f"2025-01-01T0{hour}:00:00Z", valueQuantity=quantity(16, "h"))
        for hour in (1, 2)
    ]
    joined = join(write(tmp_path, *naps), "wearable_days")
    assert joined.rows.is_empty()
    assert joined.rejected["reason"].unique().to_list() == [
        "sleep_minutes: is outside 0 to 1440 minutes"
    ]
    assert joined.rejected.height == 2
