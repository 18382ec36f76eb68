"""Great Expectations suites, one per landed table: what must hold before anything is learnt.

The readers have checked single values; here are the conditions between columns, the ones
over whole tables, and the ranges once more against what reached the lake by other ways.
An expectation tolerates its `mostly`; the rows that break it then are set aside all the same.
"""

from collections.abc import Callable

import great_expectations.expectations as gxe
from great_expectations.expectations import Expectation
from great_expectations.expectations.row_conditions import Column

from feature_repo.instruments import GAD7, INSTRUMENTS, MAX_ANSWER
from flows.sources.contract import (
    ENCOUNTER_SETTINGS,
    EVENT_KINDS,
    ITEM_COLUMNS,
    SEXES,
    TABLES,
)

#: Share of rows that may break a row-wise expectation: more points at a broken export.
TOLERANCE = 0.95

#: Beyond these a value is no measurement of a living person wearing a working device
#: (ranges of the American Heart Association and of consumer devices' own specifications).
WEARABLE_RANGES = {
    "steps": (0, 120_000),
    "active_minutes": (0, 1440),
    "sleep_minutes": (0, 1440),
    "sleep_efficiency": (0, 100),
    "resting_heart_rate": (25, 160),
    "hrv_rmssd": (1, 300),
    "wear_minutes": (0, 1440),
}


def list_people_expectations() -> list[Expectation]:
    return [
        gxe.ExpectColumnValuesToBeInSet(
            column="sex", value_set=list(SEXES), mostly=TOLERANCE, description="Sex is a known code"
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="birth_year",
            min_value=1900,
            mostly=TOLERANCE,
            description="Year of birth is 1900 or later",
        ),
    ]


def list_survey_expectations() -> list[Expectation]:
    answers = [
        gxe.ExpectColumnValuesToBeBetween(
            column=item,
            min_value=0,
            max_value=MAX_ANSWER,
            mostly=TOLERANCE,
            description=f"{item} is answered 0 to 3",
        )
        for item in ITEM_COLUMNS
    ]
    only_phq9 = [
        gxe.ExpectColumnValuesToBeNull(
            column=item,
            row_condition=Column("instrument") == GAD7.name,
            mostly=TOLERANCE,
            description=f"GAD-7 has no {item}",
        )
        for item in ITEM_COLUMNS[GAD7.item_count :]
    ]
    return [
        gxe.ExpectColumnValuesToBeInSet(
            column="instrument",
            value_set=list(INSTRUMENTS),
            mostly=TOLERANCE,
            description="The instrument is PHQ-9 or GAD-7",
        ),
        *answers,
        *only_phq9,
    ]


def list_wearable_expectations() -> list[Expectation]:
    return [
        gxe.ExpectColumnValuesToBeBetween(
            column=channel,
            min_value=low,
            max_value=high,
            mostly=TOLERANCE,
            description=f"{channel} is {low} to {high}",
        )
        for channel, (low, high) in WEARABLE_RANGES.items()
    ]


def list_event_expectations() -> list[Expectation]:
    return [
        gxe.ExpectColumnValuesToBeInSet(
            column="kind",
            value_set=list(EVENT_KINDS),
            mostly=TOLERANCE,
            description="The event is a diagnosis, a medication or an encounter",
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="setting",
            value_set=list(ENCOUNTER_SETTINGS),
            mostly=TOLERANCE,
            description="The setting of an encounter is a known one",
        ),
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A="ended_at",
            column_B="started_at",
            or_equal=True,
            ignore_row_if="either_value_is_missing",
            mostly=TOLERANCE,
            description="Nothing ends before it starts",
        ),
    ]


_OWN: dict[str, Callable[[], list[Expectation]]] = {
    "people": list_people_expectations,
    "surveys": list_survey_expectations,
    "wearable_days": list_wearable_expectations,
    "emr_events": list_event_expectations,
    "outcomes": list,
}


def list_expectations(table: str) -> list[Expectation]:
    """Return the whole suite of a table: its columns, its key, and its own conditions."""
    contract = TABLES[table]
    return [
        gxe.ExpectTableColumnsToMatchSet(
            column_set=[*contract.schema, "row"],
            exact_match=True,
            description="The columns are those of the contract",
        ),
        gxe.ExpectCompoundColumnsToBeUnique(
            column_list=["anonymized_id", *contract.key],
            description="A row is unique within an individual",
        )
        if contract.key
        else gxe.ExpectColumnValuesToBeUnique(
            column="anonymized_id", description="An individual has one row"
        ),
        *_OWN[table](),
    ]
