"""A row that Python cannot hold, written with the API's login: it is sealed, and it is named."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from serving.audit.chain import COLUMNS, GENESIS, hash_row, list_unreadable
from serving.audit.reading import TrailFilter, stream_lines
from serving.audit.sealer import make_links
from serving.database.lenient_types import MOST_DIGITS, MOST_LEVELS, Unreadable, read_object
from tests.fixtures.tampering import INSERT_LINK
from tests.fixtures.unreadable_rows import SHAPES, write_unreadable

ALL = pytest.mark.parametrize("shape", SHAPES)
PLACE = 3
#: A value that takes the place of an unreadable one, and is as unreadable.
OTHERS = {
    "created_at": "TIMESTAMPTZ '12000-01-02'",
    "details": f"jsonb_build_object('n', {'9' * 4_999}8)",
    "data_types": "ARRAY[NULL, NULL]::text[]",
}


def list_findings(trail):
    return [(one.kind, one.position, one.audit_id) for one in trail.verify().findings]


@pytest.fixture
def seal_around(trail):
    """Return what seals two rows, one of a shape, and two more."""

    def seal(shape):
        trail.write(2)
        write_unreadable(trail.application, shape)
        trail.write(2)
        assert trail.seal() == 5
        return trail

    return seal


# The sealer


@ALL
def test_rows_after_it_are_sealed_and_verified(seal_around, shape):
    trail = seal_around(shape)
    trail.write(1)

    assert trail.seal() == 1
    assert trail.sign() == 6
    assert list_findings(trail) == [("rows_unreadable", PLACE, PLACE)]
    assert trail.verify().rows == 6


@ALL
def test_a_change_of_it_after_the_seal_is_found(seal_around, shape):
    trail = seal_around(shape)
    trail.tamper("UPDATE audit_log SET action = 'other' WHERE id = 3")

    assert ("row_changed", PLACE, PLACE) in list_findings(trail)


@ALL
def test_another_value_that_cannot_be_read_is_found_too(seal_around, shape):
    trail = seal_around(shape)
    column = SHAPES[shape][0]
    trail.tamper(f"UPDATE audit_log SET {column} = {OTHERS[column]} WHERE id = 3")

    assert ("row_changed", PLACE, PLACE) in list_findings(trail)


@ALL
def test_a_readable_value_in_its_place_is_found(seal_around, shape):
    """The text of the row as a readable value does not pass for it."""
    trail = seal_around(shape)
    column = SHAPES[shape][0]
    trail.tamper(
        f"UPDATE audit_log SET {column} = other.{column} FROM audit_log AS other"
        " WHERE audit_log.id = 3 AND other.id = 2"
    )

    assert list_findings(trail) == [("row_changed", PLACE, PLACE)]


@ALL
def test_a_session_in_another_zone_and_date_style_reads_the_same_row(seal_around, shape):
    trail = seal_around(shape)
    with trail.owner.connect() as connection:
        name = connection.engine.url.database
    trail.tamper(
        f"ALTER DATABASE {name} SET timezone = 'Pacific/Kiritimati'",
        f"ALTER DATABASE {name} SET datestyle = 'German, DMY'",
    )
    trail.application.dispose()
    found = list_findings(trail)
    trail.tamper(f"ALTER DATABASE {name} RESET ALL")
    trail.application.dispose()

    assert found == [("rows_unreadable", PLACE, PLACE)]


def test_the_link_of_a_readable_row_in_the_form_of_text_is_found(trail):
    """A writer with the API's login cannot make a readable row pass as an unreadable one."""
    trail.write(1)
    with trail.owner.connect() as connection:
        row = dict(connection.execute(text("SELECT * FROM audit_log")).mappings().one())
    row["details"] = Unreadable(json.dumps(row["details"]))
    (link,) = make_links(None, [row], datetime.now(UTC))
    with trail.application.begin() as connection:
        connection.execute(INSERT_LINK, link)

    assert list_findings(trail) == [("row_changed", 1, 1)]


# What earlier sealers have sealed


def test_a_link_of_a_sealer_that_read_more_still_counts(trail):
    """The driver read 500 levels: the row is named as it is shown, but it did not change."""
    levels = f"{'[' * 500}{']' * 500}"
    trail.write(1)
    trail.tamper(r"UPDATE audit_log SET details = CAST(:text AS jsonb)", text=f'{{"n": {levels}}}')
    with trail.owner.connect() as connection:
        columns = ", ".join(COLUMNS)
        row = dict(connection.execute(text(f"SELECT {columns} FROM audit_log")).mappings().one())
    assert isinstance(row["details"], dict)
    trail.seal()
    trail.tamper(
        "UPDATE audit_chain SET row_hash = :link WHERE position = 1", link=hash_row(GENESIS, row)
    )

    assert list_findings(trail) == [("rows_unreadable", 1, 1)]


# Limits


@pytest.mark.parametrize(
    "written",
    [
        f'{{"n": {"9" * (MOST_DIGITS + 1)}}}',
        f'{{"n": 0.{"9" * (MOST_DIGITS + 1)}}}',
        f'{{"n": {"[" * MOST_LEVELS}{"]" * MOST_LEVELS}}}',
        "[]",
        "null",
        "5",
    ],
    ids=["digits", "decimals", "levels", "list", "null", "number"],
)
def test_what_is_beyond_the_limits_is_kept_as_text(written):
    assert read_object(written) == Unreadable(written)


@pytest.mark.parametrize(
    "read",
    [
        {"n": int("9" * MOST_DIGITS)},
        {"n": "9" * 5_000, "m": "[" * 5_000},
        {"n": '\\"' + "[" * 5_000},
        {"n": [[]] * 5_000},
    ],
    ids=["digits", "text", "quotes", "siblings"],
)
def test_what_is_within_the_limits_is_read(read):
    assert read_object(json.dumps(read)) == read


@given(st.text(), st.text())
def test_no_text_of_a_row_passes_for_an_unreadable_value(readable, unreadable):
    row = dict.fromkeys(COLUMNS)
    assert hash_row(GENESIS, row | {"details": readable}) != hash_row(
        GENESIS, row | {"details": Unreadable(unreadable)}
    )


# Readers


@ALL
def test_an_export_names_the_value_and_has_its_text(seal_around, shape):
    trail = seal_around(shape)
    lines = [json.loads(line) for line in stream_lines(trail.application, TrailFilter())]
    column = SHAPES[shape][0]

    assert lines[-1] == {"end": True, "rows": 5}
    assert [line["id"] for line in lines[:-1] if "unreadable" in line] == [PLACE]
    named = lines[PLACE - 1]
    assert named[column] is None
    row = named | {name: Unreadable(value) for name, value in named["unreadable"].items()}
    assert list_unreadable(row) == [column]
    if isinstance(row["created_at"], str):
        row["created_at"] = datetime.fromisoformat(row["created_at"])
    assert hash_row(bytes.fromhex(row["previous_hash"]), row).hex() == row["row_hash"]


def test_an_integer_beyond_64_bits_is_exported_as_it_is(trail):
    with trail.application.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO audit_log (created_at, event_type, user_id, user_role, data_types,"
                " action, result, details) VALUES (now(), 'e', 'u', 'r', '{}', 'a', 's',"
                " jsonb_build_object('n', 36893488147419103232))"
            )
        )
    first = next(stream_lines(trail.application, TrailFilter()))

    assert json.loads(first)["details"] == {"n": 2**65}


# The id of a row


@pytest.mark.parametrize("number", [2**63 - 1, -1], ids=["the highest", "of the past"])
def test_the_application_cannot_choose_the_id_of_a_row(trail, number):
    """Sealing looks for rows from a little below the newest sealed id on."""
    trail.write(1)
    with (
        pytest.raises(ProgrammingError, match="permission denied"),
        trail.application.begin() as connection,
    ):
        connection.execute(
            text(
                "INSERT INTO audit_log (id, created_at, event_type, user_id, user_role,"
                " data_types, action, result, details) OVERRIDING SYSTEM VALUE"
                " VALUES (:id, now(), 'e', 'u', 'r', '{}', 'a', 's', '{}')"
            ),
            {"id": number},
        )
    trail.write(1)

    assert trail.seal() == 2
