"""Features by hand-computed values."""

import math
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from flows.features.care import compute_care_history
from flows.features.demographics import compute_demographics
from flows.features.moments import list_moments
from flows.features.sequences import compute_weekly_sequence
from flows.features.surveys import compute_survey_history
from flows.features.wearables import compute_wearable_windows
from tests.fixtures.landed_tables import make_table, midnight

SOMEONE, OTHER = "a" * 32, "b" * 32
AS_OF = midnight(2025, 6, 1)
MOMENTS = pl.DataFrame({"anonymized_id": [SOMEONE], "as_of": [AS_OF]}).cast(
    {"as_of": pl.Datetime("us", "UTC")}
)
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
SERTRALINE = "36437"


def before(days: float):
    return AS_OF - timedelta(days=days)


def survey(days_ago: float, items: list[int | None], instrument="PHQ-9", available=None) -> dict:
    answered_at = before(days_ago)
    return {
        "anonymized_id": SOMEONE,
        "instrument": instrument,
        "answered_at": answered_at,
        "available_at": available or answered_at,
        **{f"item_{n}": answer for n, answer in enumerate(items, 1)},
    }


def day(days_ago: int, **channels: float) -> dict:
    worn = before(days_ago)
    return {"anonymized_id": SOMEONE, "date": worn.date(), "available_at": worn, **channels}


def event(days_ago: float, kind="encounter", ends_days_ago: float | None = None, **more) -> dict:
    started = before(days_ago)
    ended = None if ends_days_ago is None else before(ends_days_ago)
    times = {"started_at": started, "ended_at": ended, "available_at": started}
    return {"anonymized_id": SOMEONE, "kind": kind, "system": "s", "code": "c", **times, **more}


def survey_row(*surveys: dict) -> dict:
    (row,) = compute_survey_history(MOMENTS, make_table("surveys", *surveys)).to_dicts()
    return row


def wearable_row(*days: dict) -> dict:
    (row,) = compute_wearable_windows(MOMENTS, make_table("wearable_days", *days)).to_dicts()
    return row


def care_row(*events: dict) -> dict:
    (row,) = compute_care_history(MOMENTS, make_table("emr_events", *events)).to_dicts()
    return row


def test_who_has_no_data_has_no_row():
    assert compute_survey_history(MOMENTS, make_table("surveys")).is_empty()
    assert compute_wearable_windows(MOMENTS, make_table("wearable_days")).is_empty()
    assert compute_care_history(MOMENTS, make_table("emr_events")).is_empty()
    tables = [make_table(name) for name in ("surveys", "wearable_days", "emr_events")]
    assert compute_weekly_sequence(MOMENTS, *tables).is_empty()


def test_the_last_questionnaire_and_the_one_before_are_kept():
    row = survey_row(survey(40, [1] * 9), survey(10, [2] * 8 + [1]), survey(70, [0] * 9))

    assert row["stored_phq9_total"] == 17
    assert row["stored_phq9_item_1"] == 2
    assert row["stored_phq9_item_9"] == 1
    assert row["previous_phq9_total"] == 9
    assert row["stored_phq9_at"] == (before(10).date() - date(1970, 1, 1)).days


def test_a_first_questionnaire_has_no_previous_one():
    assert survey_row(survey(10, [1] * 9))["previous_phq9_total"] is None


def test_a_year_of_questionnaires_is_summarised():
    row = survey_row(survey(60, [0] * 9), survey(30, [1] * 9), survey(0.5, [2] * 9))

    assert row["phq9_mean_365"] == 9
    assert row["phq9_max_365"] == 18
    assert row["phq9_sd_365"] == 9
    assert row["phq9_count_365"] == 3
    assert row["phq9_self_harm_365"] == 2
    assert row["phq9_slope_365"] == pytest.approx(9)  # points per 30 days


def test_questionnaires_of_more_than_a_year_ago_are_only_the_last_known():
    row = survey_row(survey(380, [3] * 9))

    assert row["stored_phq9_total"] == 27
    assert row["phq9_mean_365"] is None


def test_an_incomplete_questionnaire_has_answers_but_no_total():
    row = survey_row(survey(30, [1] * 9), survey(10, [None, *[1] * 8]))

    assert row["stored_phq9_total"] is None
    assert row["stored_phq9_item_2"] == 1
    assert row["phq9_mean_365"] == 9


def test_gad7_is_summed_over_seven_items():
    row = survey_row(
        survey(60, [1] * 7 + [None, None], "GAD-7"), survey(30, [2] * 7 + [None, None], "GAD-7")
    )

    assert row["stored_gad7_total"] == 14
    assert row["gad7_mean_365"] == 10.5
    assert row["gad7_slope_365"] == pytest.approx(7)
    assert row["stored_phq9_total"] is None


def test_a_short_form_or_a_total_displaces_no_answer_of_a_full_questionnaire():
    gate = survey(2, [0, 0], "PHQ-2")
    total = survey(1, [], "PHQ-9") | {"total": 18}
    row = survey_row(survey(4, [1] * 8 + [3]), gate, total)

    assert row["stored_phq9_item_9"] == 3
    assert row["stored_phq9_total"] == 18
    assert row["previous_phq9_total"] == 11
    assert row["phq2_last"] == 0


def test_a_total_speaks_alone_where_the_items_are_long_past():
    total = survey(1, [], "PHQ-9") | {"total": 18}
    assert survey_row(survey(60, [1] * 8 + [3]), total)["stored_phq9_item_9"] is None


def test_a_day_on_which_the_device_was_not_worn_is_missing():
    worn = [day(n, steps=9000.0, wear_minutes=1300.0) for n in (1, 3, 6)]
    unworn = [day(n, steps=0.0, wear_minutes=0.0) for n in (2, 4, 5, 7)]
    row = wearable_row(*worn, *unworn)

    assert row["steps_mean_7"] == 9000
    assert row["steps_missing_7"] == pytest.approx(4 / 7)


def test_what_is_answered_at_the_very_moment_is_not_history():
    table = make_table("surveys", survey(0, [1] * 9))
    assert compute_survey_history(MOMENTS, table).is_empty()


def test_a_correction_dates_the_row_to_when_it_was_known():
    corrected = AS_OF + timedelta(days=20)
    row = survey_row(survey(40, [1] * 9), survey(10, [2] * 9, available=corrected))

    assert row["event_timestamp"] == AS_OF
    assert row["created_timestamp"] == corrected


def test_a_row_is_not_known_before_the_moment_it_stands_for():
    assert survey_row(survey(40, [1] * 9))["created_timestamp"] == AS_OF


def test_windows_hold_mean_spread_trend_and_missing_share():
    steps = {1: 1000.0, 2: 3000.0, 7: 2000.0, 8: 9000.0}
    row = wearable_row(*[day(ago, steps=value) for ago, value in steps.items()])
    week = [1000, 3000, 2000]

    assert row["steps_mean_7"] == pytest.approx(np.mean(week))
    assert row["steps_sd_7"] == pytest.approx(np.std(week, ddof=1))
    assert row["steps_slope_7"] == pytest.approx(np.polyfit([-1, -2, -7], week, 1)[0] * 7)
    assert row["steps_missing_7"] == pytest.approx(4 / 7)
    assert row["steps_mean_28"] == pytest.approx(np.mean([*week, 9000]))
    assert row["steps_missing_28"] == pytest.approx(24 / 28)
    assert row["steps_missing_60"] == pytest.approx(56 / 60)
    assert row["steps_last"] == 1000


@pytest.mark.parametrize(("ago", "known"), [(0, False), (1, True), (60, True), (61, False)])
def test_the_longest_window_is_yesterday_to_sixty_days_ago(ago, known):
    days = make_table("wearable_days", day(ago, steps=5.0))
    assert compute_wearable_windows(MOMENTS, days).is_empty() is not known


def test_a_reading_that_is_missing_is_not_a_zero():
    row = wearable_row(day(2, steps=500.0, hrv_rmssd=30.0), day(1, steps=700.0))

    assert row["hrv_rmssd_mean_7"] == 30
    assert row["hrv_rmssd_missing_7"] == pytest.approx(6 / 7)
    assert row["hrv_rmssd_last"] == 30
    assert row["hrv_rmssd_sd_7"] is None
    assert row["hrv_rmssd_slope_7"] is None
    assert row["sleep_minutes_mean_60"] is None
    assert row["sleep_minutes_missing_60"] == 1


def test_encounters_are_counted_by_setting_and_time():
    row = care_row(
        event(10, setting="outpatient"),
        event(89.5, setting="psychiatric_outpatient"),
        event(91, setting="psychiatric_emergency"),
        event(200, setting="emergency"),
        event(400, setting="psychiatric_inpatient"),
    )

    assert row["encounters_90"] == 2
    assert row["encounters_365"] == 4
    assert row["psychiatric_encounters_90"] == 1
    assert row["psychiatric_encounters_365"] == 2
    assert row["acute_encounters_365"] == 2
    assert row["acute_psychiatric_365"] == 1
    assert row["days_since_psychiatric"] == 89
    assert row["days_since_acute_psychiatric"] == 91


def medication(days_ago: float, code=SERTRALINE, ends_days_ago=None) -> dict:
    return event(days_ago, "medication", ends_days_ago, system=RXNORM, code=code)


@pytest.mark.parametrize(
    ("given", "active"),
    [
        (medication(30), 1),
        (medication(90), 1),
        (medication(91), 0),  # without an end a supply is assumed to last 90 days
        (medication(80, ends_days_ago=20), 0),
        (medication(80, ends_days_ago=-20), 1),
        (medication(200, ends_days_ago=-20), 0),  # what lies ahead is not known
        (medication(30, code="29046"), 0),  # lisinopril
    ],
)
def test_an_antidepressant_is_active_while_its_supply_lasts(given, active):
    assert care_row(given)["antidepressant_active"] == active


def test_diagnoses_are_recognised_by_icd10_and_snomed():
    icd10 = event(900, "diagnosis", system="http://hl7.org/fhir/sid/icd-10-cm", code="F33.1")
    snomed = event(900, "diagnosis", system="http://snomed.info/sct", code="197480006")
    row = care_row(icd10, snomed)

    assert row["depression_diagnosed"] == row["anxiety_diagnosed"] == 1
    assert row["substance_use_diagnosed"] == row["severe_mental_illness_diagnosed"] == 0


def test_a_code_of_another_kind_of_event_is_no_diagnosis():
    prescribed = event(9, "medication", system="http://hl7.org/fhir/sid/icd-10-cm", code="F33.1")
    assert care_row(prescribed)["depression_diagnosed"] == 0


def test_an_unknown_sex_is_neither_female_nor_male():
    people = [
        {"anonymized_id": name * 32, "birth_year": 1980, "sex": sex}
        for name, sex in (("a", "female"), ("b", "unknown"), ("c", "other"))
    ]
    rows = compute_demographics(make_table("people", *people)).sort("anonymized_id")

    assert rows["sex_female"].to_list() == [True, None, False]
    assert rows["sex_male"].to_list() == [False, None, False]


def sequence_row(**tables: list[dict]) -> dict:
    names = ("surveys", "wearable_days", "emr_events")
    frames = [make_table(name, *tables.get(name, [])) for name in names]
    (row,) = compute_weekly_sequence(MOMENTS, *frames).to_dicts()
    return row


def known_weeks(weeks: list[float]) -> dict[int, float]:
    assert len(weeks) == 26
    return {n: value for n, value in enumerate(weeks) if not math.isnan(value)}


def test_the_last_week_ends_at_the_moment_and_the_first_began_26_weeks_before():
    row = sequence_row(
        surveys=[survey(ago, [1] * 9) for ago in (0.5, 7.5, 181.5, 182.5)],
        wearable_days=[day(ago, steps=float(ago)) for ago in (1, 7, 8, 182, 183)],
        emr_events=[event(3, setting="psychiatric_outpatient"), event(3.5, setting="inpatient")],
    )

    assert known_weeks(row["weekly_phq9"]) == {25: 9, 24: 9, 0: 9}
    assert known_weeks(row["weekly_steps"]) == {25: 4, 24: 8, 0: 182}
    assert known_weeks(row["weekly_worn_days"]) == {25: 2, 24: 1, 0: 1}
    assert known_weeks(row["weekly_psychiatric_encounters"]) == {25: 1}
    assert known_weeks(row["weekly_gad7"]) == {}


def test_a_week_keeps_its_last_total():
    row = sequence_row(surveys=[survey(3, [1] * 9), survey(1, [2] * 9)])
    assert known_weeks(row["weekly_phq9"]) == {25: 18}


def test_moments_are_the_days_of_phq9_and_the_snapshot():
    surveys = make_table("surveys", survey(10.5, [1] * 9), survey(5.5, [1] * 7, "GAD-7"))
    moments = list_moments(surveys, pl.Series([SOMEONE, OTHER]), AS_OF.date())

    assert moments.rows() == [
        (SOMEONE, midnight(2025, 5, 21)),
        (SOMEONE, AS_OF),
        (OTHER, AS_OF),
    ]


def test_an_adjudicated_outcome_is_a_moment_at_the_end_of_its_day():
    outcomes = pl.DataFrame({"anonymized_id": [SOMEONE], "index_date": [date(2025, 5, 20)]})
    moments = list_moments(
        make_table("surveys", survey(5.5, [1] * 7, "GAD-7")),
        pl.Series([SOMEONE, OTHER]),
        AS_OF.date(),
        outcomes,
    )

    assert moments.rows() == [(SOMEONE, midnight(2025, 5, 21)), (SOMEONE, AS_OF), (OTHER, AS_OF)]


def test_answers_after_the_snapshot_are_no_moments():
    moments = list_moments(
        make_table("surveys", survey(-5, [1] * 9)), pl.Series([SOMEONE]), AS_OF.date()
    )
    assert moments["as_of"].to_list() == [AS_OF]
