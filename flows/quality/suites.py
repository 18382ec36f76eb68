"""Great Expectations suites, one per landed table: what must hold before anything is learnt.

The readers have checked single values; here are the conditions between columns, the ones
over whole tables, and the ranges once more against what reached the lake by other ways.
An expectation tolerates its `mostly`; the rows that break it then are set aside all the same.
"""

from collections.abc import Callable

import great_expectations.expectations as gxe
from great_expectations.expectations import Expectation
from great_expectations.expectations.row_conditions import Column

from feature_repo.instruments import INSTRUMENTS, ITEM_COLUMNS
from flows.sources.contract import (
    ENCOUNTER_SETTINGS,
    EVENT_KINDS,
    SEXES,
    TABLES,
    WEARABLE_LIMITS,
)

#: Share of rows that may break a row-wise expectation: more points at a broken export.
TOLERANCE = 0.95


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
    highest = sorted(
        {instrument.max_answer for instrument in INSTRUMENTS.values() if instrument.item_count}
    )
    return [
        gxe.ExpectColumnValuesToBeInSet(
            column="instrument",
            value_set=list(INSTRUMENTS),
            mostly=TOLERANCE,
            description="The instrument is a known one",
        ),
        *(_expect_answers(item, number, most) for most in highest for number, item in ITEMS),
        *filter(None, (_expect_no_surplus(item, number) for number, item in ITEMS)),
    ]


ITEMS = tuple(enumerate(ITEM_COLUMNS, 1))


def _expect_answers(item: str, number: int, most: int) -> Expectation:
    names = [
        instrument.name for instrument in INSTRUMENTS.values() if instrument.max_answer == most
    ]
    return gxe.ExpectColumnValuesToBeBetween(
        column=item,
        min_value=0,
        max_value=most,
        row_condition=Column("instrument").is_in(names),
        mostly=TOLERANCE,
        description=f"{item} is answered 0 to {most}",
    )


def _expect_no_surplus(item: str, number: int) -> Expectation | None:
    shorter = [
        instrument.name for instrument in INSTRUMENTS.values() if instrument.item_count < number
    ]
    return gxe.ExpectColumnValuesToBeNull(
        column=item,
        row_condition=Column("instrument").is_in(shorter),
        mostly=TOLERANCE,
        description=f"A shorter instrument has no {item}",
    )


def list_wearable_expectations() -> list[Expectation]:
    return [
        gxe.ExpectColumnValuesToBeBetween(
            column=channel,
            min_value=low,
            max_value=high,
            mostly=TOLERANCE,
            description=f"{channel} is {low} to {high}",
        )
        for channel, (low, high, _) in WEARABLE_LIMITS.items()
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
