"""What counts as deterioration, day by day and point by point."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from flows.datasets.labels import LABEL, WORSENED, derive_labels, label_index
from flows.sources.contract import EMR_EVENTS, OUTCOMES, SURVEYS

SOMEONE, OTHER = "a" * 32, "b" * 32
INDEX = date(2025, 3, 1)
LONG_AFTER = date(2026, 3, 1)


def at(day: date, hour: int = 9) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=UTC)


def after(days: int) -> date:
    return INDEX + timedelta(days=days)


def spread(total: int) -> list[int]:
    """Return nine answers that add up to `total`."""
    return [min(3, max(0, total - 3 * n)) for n in range(9)]


def phq9(day: date, total: int, hour: int = 9, person: str = SOMEONE) -> dict:
    items = {f"item_{n}": points for n, points in enumerate(spread(total), 1)}
    return {"anonymized_id": person, "instrument": "PHQ-9", "answered_at": at(day, hour)} | items


def encounter(day: date, setting: str, kind: str = "encounter", person: str = SOMEONE) -> dict:
    return {"anonymized_id": person, "kind": kind, "setting": setting, "started_at": at(day)}


def outcome(day: date, happened: bool) -> dict:
    return {"anonymized_id": SOMEONE, "index_date": day, "outcome": happened}


def label(
    *surveys,
    events=(),
    outcomes=(),
    known_until: date = LONG_AFTER,
    of: str = WORSENED,
) -> dict[date, bool]:
    """Return the labels of SOMEONE of one outcome by index date."""
    labels = derive_labels(
        pl.DataFrame(list(surveys), schema=dict(SURVEYS.schema)),
        pl.DataFrame(list(events), schema=dict(EMR_EVENTS.schema)),
        pl.DataFrame(list(outcomes), schema=dict(OUTCOMES.schema)),
        known_until,
    ).filter(pl.col("anonymized_id") == SOMEONE)
    return dict(labels.select("index_date", of).iter_rows())


def test_without_follow_up_there_is_no_label():
    assert label(phq9(INDEX, 5)) == {}


def test_an_incomplete_questionnaire_is_neither_index_nor_follow_up():
    incomplete = phq9(after(30), 20) | {"item_4": None}
    assert label(phq9(INDEX, 5), incomplete) == {}
    assert label(incomplete, phq9(after(40), 27)) == {}


def test_an_outpatient_visit_is_no_follow_up():
    assert label(phq9(INDEX, 5), events=[encounter(after(10), "psychiatric_outpatient")]) == {}


def test_someone_elses_follow_up_does_not_count():
    worse = phq9(after(10), 25, person=OTHER)
    admitted = encounter(after(10), "psychiatric_inpatient", person=OTHER)
    assert label(phq9(INDEX, 5), worse, events=[admitted]) == {}


@pytest.mark.parametrize(
    ("before", "later", "worsened"),
    [
        (5, 10, True),
        (6, 10, False),  # a rise of four
        (4, 9, False),  # a rise of five, but below ten
        (10, 15, True),
        (10, 14, False),
        (27, 27, False),
        (20, 3, False),
    ],
)
def test_a_rise_of_five_to_at_least_ten_is_a_worsening(before, later, worsened):
    assert label(phq9(INDEX, before), phq9(after(30), later))[INDEX] is worsened


@pytest.mark.parametrize(
    ("before", "later", "adverse"),
    [
        (5, 10, True),  # a marked rise
        (5, 9, False),
        (20, 15, True),  # still severe
        (20, 14, False),
        (27, 27, True),
    ],
)
def test_an_adverse_course_is_a_severe_total_or_a_marked_rise(before, later, adverse):
    found = label(phq9(INDEX, before), phq9(after(30), later), of=LABEL)
    assert found[INDEX] is adverse


@pytest.mark.parametrize("outcome_name", [LABEL, WORSENED])
def test_acute_care_without_a_follow_up_gives_no_label(outcome_name):
    admitted = encounter(after(10), "psychiatric_inpatient")
    assert label(phq9(INDEX, 5), events=[admitted], of=outcome_name) == {}
    followed = label(phq9(INDEX, 5), phq9(after(60), 5), events=[admitted], of=outcome_name)
    assert followed[INDEX] is True


@pytest.mark.parametrize(("day", "seen"), [(0, False), (1, True), (90, True), (91, False)])
def test_the_horizon_is_day_one_to_day_ninety(day, seen):
    worse = label(phq9(INDEX, 5, hour=8), phq9(after(day), 20, hour=20))
    care = [encounter(after(day), "psychiatric_inpatient")]
    admitted = label(phq9(INDEX, 5), phq9(after(50), 5), events=care)

    assert worse.get(INDEX) is (True if seen else None)
    assert admitted[INDEX] is seen


@pytest.mark.parametrize(
    ("setting", "counts"),
    [
        ("psychiatric_emergency", True),
        ("psychiatric_inpatient", True),
        ("psychiatric_outpatient", False),
        ("emergency", False),
        ("inpatient", False),
        ("outpatient", False),
    ],
)
def test_only_psychiatric_emergencies_and_admissions_count(setting, counts):
    found = label(phq9(INDEX, 5), phq9(after(50), 5), events=[encounter(after(20), setting)])
    assert found[INDEX] is counts


def test_a_diagnosis_made_in_an_emergency_is_no_encounter():
    diagnosed = encounter(after(20), "psychiatric_emergency", kind="diagnosis")
    assert label(phq9(INDEX, 5), phq9(after(50), 5), events=[diagnosed])[INDEX] is False


def test_an_emergency_counts_also_when_the_questionnaire_improved():
    emergency = encounter(after(90), "psychiatric_emergency")
    assert label(phq9(INDEX, 20), phq9(after(5), 2), events=[emergency])[INDEX] is True


def test_what_happens_on_the_index_day_counts_neither_way():
    again = phq9(INDEX, 25, hour=22)
    emergency = encounter(INDEX, "psychiatric_emergency")

    assert label(phq9(INDEX, 5), again, events=[emergency]) == {}
    assert label(phq9(INDEX, 5), again, phq9(after(9), 5), events=[emergency])[INDEX] is False


def test_the_first_questionnaire_of_a_day_is_the_index():
    found = label(phq9(INDEX, 5, hour=8), phq9(INDEX, 15, hour=20), phq9(after(30), 12))
    assert found[INDEX] is True  # from 5, not from 15


def test_one_bad_questionnaire_of_several_is_enough():
    found = label(phq9(INDEX, 5), phq9(after(20), 3), phq9(after(40), 12), phq9(after(60), 4))
    assert found[INDEX] is True


@pytest.mark.parametrize(("days_known", "labelled"), [(89, False), (90, True)])
def test_a_window_that_is_not_over_gives_no_label(days_known, labelled):
    found = label(phq9(INDEX, 5), phq9(after(30), 20), known_until=after(days_known))
    assert (INDEX in found) is labelled


@pytest.mark.parametrize("happened", [True, False])
def test_an_adjudicated_outcome_takes_the_place_of_the_derived_label(happened):
    follow_up = phq9(after(30), 5 if happened else 25)
    found = label(phq9(INDEX, 5), follow_up, outcomes=[outcome(INDEX, happened)])
    assert found[INDEX] is happened


def test_an_adjudicated_outcome_needs_no_follow_up_and_no_waiting():
    found = label(phq9(INDEX, 5), outcomes=[outcome(INDEX, True)], known_until=INDEX)
    assert found == {INDEX: True}


def test_an_index_carries_the_time_of_its_answers():
    surveys = pl.DataFrame([phq9(INDEX, 5, hour=17), phq9(after(9), 5)], dict(SURVEYS.schema))
    empty = [pl.DataFrame(schema=dict(table.schema)) for table in (EMR_EVENTS, OUTCOMES)]
    labels = derive_labels(surveys, *empty, LONG_AFTER)

    assert labels["index_time"].to_list() == [at(INDEX, 17)]


def test_a_label_tells_where_it_comes_from():
    index = pl.DataFrame(
        {"anonymized_id": [SOMEONE] * 2, "index_date": [INDEX, after(10)], "total": [5.0, None]}
    )
    events = pl.DataFrame(
        [encounter(after(40), "psychiatric_inpatient")], schema=dict(EMR_EVENTS.schema)
    )
    adjudicated = pl.DataFrame([outcome(INDEX, False)], schema=dict(OUTCOMES.schema))
    followed = pl.DataFrame([phq9(after(60), 5)], schema=dict(SURVEYS.schema))
    found = label_index(index, followed, events, adjudicated, LONG_AFTER)

    assert found.select("index_date", LABEL, "source").rows() == [
        (INDEX, False, "adjudicated"),
        (after(10), True, "observed"),
    ]


def test_an_adjudicated_outcome_makes_an_index_date_without_any_phq9():
    assert label(outcomes=[outcome(INDEX, True)], of=LABEL) == {INDEX: True}
    assert label(outcomes=[outcome(INDEX, False)], of=WORSENED) == {INDEX: False}


def test_an_outcome_of_a_day_with_a_phq9_makes_no_second_index_date():
    found = label(phq9(INDEX, 5), phq9(after(30), 20), outcomes=[outcome(INDEX, False)], of=LABEL)
    assert found[INDEX] is False
    assert list(found) == [INDEX]


def test_what_is_known_of_the_day_of_an_outcome_counts():
    labels = derive_labels(
        pl.DataFrame(schema=dict(SURVEYS.schema)),
        pl.DataFrame(schema=dict(EMR_EVENTS.schema)),
        pl.DataFrame([outcome(INDEX, True)], schema=dict(OUTCOMES.schema)),
        LONG_AFTER,
    )
    over = datetime(INDEX.year, INDEX.month, INDEX.day, tzinfo=UTC) + timedelta(days=1)
    assert labels["index_time"].to_list() == [over]
