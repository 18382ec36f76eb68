"""The page of the contract says what the code does."""

import re
from pathlib import Path

import pytest

from feature_repo.consent_terms import DATA_TYPES, PURPOSES
from feature_repo.instruments import INSTRUMENTS
from flows.sources.clean import PARSERS, WITHDRAWALS
from flows.sources.contract import (
    ENCOUNTER_SETTINGS,
    EVENT_KINDS,
    SEXES,
    TABLES,
    WEARABLE_CHANNELS,
    WEARABLE_LIMITS,
    Table,
)
from flows.sources.fhir_consents import DATA_TYPE_CODES, PURPOSE_CODES
from flows.sources.fhir_wearables import CHANNELS

PAGE = (Path(__file__).parents[3] / "flows" / "sources" / "README.md").read_text(encoding="utf-8")


def read_rows(columns: int) -> list[list[str]]:
    """Return the cells of all tables of the page with this many columns."""
    rows = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows if len(row) == columns]


def quoted(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`([^`]+)`", text))


def describe(table: Table) -> tuple[tuple[str, ...], ...]:
    return (table.required, table.optional, table.key, tuple(filter(None, [table.data_type])))


def test_the_page_lists_every_table_with_its_columns_key_and_consent() -> None:
    stated = {quoted(row[0])[0]: tuple(map(quoted, row[1:])) for row in read_rows(5)[2:]}
    assert stated == {table.name: describe(table) for table in TABLES.values()}


def test_the_page_states_every_limit() -> None:
    rows = [row for row in read_rows(4) if row[0].startswith("`")]
    stated = {quoted(row[0])[0]: (float(row[1]), float(row[2]), row[3]) for row in rows}
    assert stated == WEARABLE_LIMITS
    assert tuple(stated) == WEARABLE_CHANNELS


def test_the_page_lists_every_wearable_code() -> None:
    rows = [row for row in read_rows(3) if re.match(r"\d", row[0])]
    assert {row[0]: quoted(row[1])[0] for row in rows} == {
        loinc: channel for loinc, (channel, _, _) in CHANNELS.items()
    }


@pytest.mark.parametrize(
    "terms",
    [SEXES, EVENT_KINDS, ENCOUNTER_SETTINGS, DATA_TYPES, PURPOSES, tuple(INSTRUMENTS)],
)
def test_the_page_names_every_term(terms: tuple[str, ...]) -> None:
    assert set(terms) <= set(quoted(PAGE))


def test_the_page_names_every_code_of_a_consent() -> None:
    (row,) = [row for row in read_rows(2) if row[0] == "Consent"]
    for code in (*DATA_TYPE_CODES, *PURPOSE_CODES):
        assert re.search(rf"\b{code}\b", row[1]), code


def test_every_column_of_the_contract_is_checked_and_no_other() -> None:
    for table in (*TABLES.values(), WITHDRAWALS):
        assert set(PARSERS[table.name]) == {*table.required, *table.optional}
