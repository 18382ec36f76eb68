"""What a verification reports: each kind of tampering by its name, at its place."""

import json
from datetime import timedelta

import pytest
from sqlalchemy import text

from serving.audit.signing import KeyRing
from serving.audit.verification import TOLERANCE, Finding, count_unsealed, verify_trail
from tests.fixtures.audit_trail import SIGNER
from tests.fixtures.tampering import (
    change_column,
    flip_a_hash,
    locate_checkpoint,
    remove_link,
    remove_row,
    remove_row_and_link,
    rewrite_history,
    set_up,
)
from tests.fixtures.unreadable_rows import SHAPES

PLACE = 3
A_MOMENT = timedelta(seconds=30)


def list_findings(trail):
    return [(one.kind, one.position, one.audit_id) for one in trail.verify().findings]


def move(trail, place, age):
    """Date a row back, as a writer could who slips it in before it is sealed."""
    seconds = age.total_seconds()
    trail.tamper(
        "UPDATE audit_log SET created_at = now() - make_interval(secs => :age) WHERE id = :id",
        id=place,
        age=seconds,
    )


@pytest.mark.parametrize(
    ("tamper", "findings"),
    [
        (change_column("action", "'nothing'"), [("row_changed", 3, 3)]),
        (remove_row, [("row_removed", 3, 3)]),
        (remove_link, [("link_removed", 3, None), ("chain_broken", 4, 4)]),
        (remove_row_and_link, [("link_removed", 3, None), ("chain_broken", 4, 4)]),
        (flip_a_hash("previous_hash"), [("chain_broken", 3, 3), ("row_changed", 3, 3)]),
        (flip_a_hash("row_hash"), [("row_changed", 3, 3), ("chain_broken", 4, 4)]),
    ],
    ids=["row changed", "row removed", "link removed", "both removed", "before", "after"],
)
def test_a_finding_names_its_kind_and_its_place(trail, tmp_path, tamper, findings):
    set_up(trail, tmp_path / "checkpoints")
    tamper(trail, PLACE)

    assert list_findings(trail) == findings


def test_the_link_of_a_checkpoint_that_was_removed_is_named_once_for_each_trace(trail, tmp_path):
    set_up(trail, tmp_path / "checkpoints")
    remove_link(trail, 6)

    assert list_findings(trail) == [
        ("link_removed", 6, None),
        ("chain_broken", 7, 7),
        ("link_removed", 6, None),
    ]


def test_a_tail_that_was_cut_off_is_named_by_the_checkpoint_that_held_it(trail, tmp_path):
    set_up(trail, tmp_path / "checkpoints")
    trail.tamper("DELETE FROM audit_log WHERE id > 4", "DELETE FROM audit_chain WHERE position > 4")

    assert list_findings(trail) == [("tail_removed", 6, None)]


def test_an_intact_trail_is_described_by_its_rows_its_head_and_its_newest_checkpoint(
    trail, tmp_path
):
    set_up(trail, tmp_path / "checkpoints")
    found = trail.verify()
    with trail.owner.connect() as connection:
        query = text("SELECT encode(row_hash, 'hex') FROM audit_chain WHERE position = 9")
        head = connection.scalar(query)

    assert (found.rows, found.head) == (9, head)
    assert (found.checkpoints, found.newest_checkpoint) == (1, 6)
    assert (found.finding_count, found.findings) == (0, [])


def test_an_empty_trail_has_no_head_and_no_checkpoint(trail):
    found = trail.verify()

    assert (found.rows, found.head) == (0, None)
    assert (found.checkpoints, found.newest_checkpoint) == (0, None)


# Rows that claim another time


def test_the_tolerance_is_five_minutes():
    assert timedelta(minutes=5) == TOLERANCE


@pytest.mark.parametrize(
    ("age", "findings"),
    [
        (TOLERANCE - A_MOMENT, []),
        (TOLERANCE + A_MOMENT, [("row_not_sealed", None, 3)]),
    ],
    ids=["in time", "too long"],
)
def test_a_row_that_waits_too_long_for_its_seal_is_found(trail, age, findings):
    trail.write(2)
    trail.seal()
    trail.write(1)
    move(trail, 3, age)

    assert list_findings(trail) == findings


def test_rows_that_wait_too_long_are_named_in_order(trail):
    trail.write(3)
    for place in (3, 1, 2):
        move(trail, place, 2 * TOLERANCE)

    assert [audit_id for _, _, audit_id in list_findings(trail)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("age", "findings"),
    [
        (TOLERANCE - A_MOMENT, []),
        (TOLERANCE + A_MOMENT, [("row_backdated", 3, 3)]),
    ],
    ids=["in time", "backdated"],
)
def test_a_sealed_row_of_a_time_that_a_checkpoint_covers_is_found(trail, age, findings):
    trail.write(2)
    trail.seal()
    trail.sign()
    trail.write(1)
    move(trail, 3, age)
    trail.seal()

    assert list_findings(trail) == findings


# Checkpoints


def sign_again(trail, path):
    """Sign what the chain says now, with the real key, in place of a checkpoint."""
    with trail.owner.connect() as connection:
        query = text("SELECT encode(row_hash, 'hex') FROM audit_chain WHERE position = 6")
        row_hash = connection.scalar(query)
    document = json.loads(path.read_text()) | {"row_hash": row_hash}
    return SIGNER.sign({name: document[name] for name in document if name != "signature"})


@pytest.mark.parametrize("is_outside", [True, False], ids=["in the store", "in the database"])
def test_two_genuine_checkpoints_of_one_position_that_differ_are_found(trail, tmp_path, is_outside):
    """Two chains were signed with one key: one of them is not what happened."""
    set_up(trail, tmp_path / "checkpoints")
    path = locate_checkpoint(trail)
    rewrite_history(trail, 2)
    other = json.dumps(sign_again(trail, path))
    if is_outside:
        path.write_text(other)
    else:
        statement = "UPDATE audit_checkpoints SET document = CAST(:document AS jsonb)"
        trail.tamper(statement, document=other)

    assert ("checkpoint_forged", 6, None) in list_findings(trail)


@pytest.fixture
def four_checkpoints(trail, monkeypatch):
    """A trail with checkpoints at 1 to 4, of which a verification reads the newest two."""
    monkeypatch.setattr("serving.audit.verification.NEWEST", 2)
    for _ in range(4):
        trail.write(1)
        trail.seal()
        trail.sign()
    return trail


def locate(trail, position):
    return trail.folder / f"checkpoint-{position:015d}.json"


def test_checkpoints_beyond_the_newest_count_without_being_read(four_checkpoints):
    locate(four_checkpoints, 2).write_text("{")

    assert four_checkpoints.verify().intact
    assert four_checkpoints.verify().checkpoints == 4


@pytest.mark.parametrize("position", [1, 2, 3, 4])
def test_a_checkpoint_that_was_removed_outside_is_found_however_old(four_checkpoints, position):
    locate(four_checkpoints, position).unlink()

    assert list_findings(four_checkpoints) == [("checkpoint_removed_outside", position, None)]


@pytest.mark.parametrize("position", [3, 4])
def test_the_newest_checkpoints_are_read(four_checkpoints, position):
    locate(four_checkpoints, position).write_text("{")

    assert list_findings(four_checkpoints) == [("checkpoint_forged", position, None)]


@pytest.mark.parametrize("position", [3, 4])
def test_the_store_alone_proves_the_newest_checkpoints(four_checkpoints, position):
    four_checkpoints.tamper("DELETE FROM audit_checkpoints WHERE position = :at", at=position)

    found = four_checkpoints.verify()
    assert (found.intact, found.checkpoints) == (True, 4)


def test_without_the_store_the_checkpoints_of_the_database_count(trail, tmp_path):
    set_up(trail, tmp_path / "checkpoints")
    trail.folder = tmp_path / "checkpoints" / locate_checkpoint(trail).name
    found = trail.verify()

    assert found.findings == [Finding("checkpoint_store_unreadable")]
    assert (found.intact, found.checkpoints) == (False, 1)


def test_a_checkpoint_of_a_key_that_does_not_count_is_forged(trail, tmp_path):
    set_up(trail, tmp_path / "checkpoints")
    found = verify_trail(trail.application, trail.store, KeyRing([]))

    assert {one.kind for one in found.findings} == {"checkpoint_forged"}
    assert (found.checkpoints, found.newest_checkpoint) == (0, None)


@pytest.mark.parametrize("changes", [{"kind": "mhras-erasure-receipt"}, {"position": 5}], ids=str)
def test_a_genuine_signature_of_another_document_is_no_checkpoint(trail, tmp_path, changes):
    set_up(trail, tmp_path / "checkpoints")
    path = locate_checkpoint(trail)
    document = json.loads(path.read_text()) | changes
    del document["signature"]
    path.write_text(json.dumps(SIGNER.sign(document)))

    assert list_findings(trail) == [("checkpoint_forged", 6, None)]


# Rows that wait


def test_rows_that_wait_for_their_seal_are_counted(trail):
    with trail.owner.connect() as connection:
        assert count_unsealed(connection) == 0
    trail.write(3)
    with trail.owner.connect() as connection:
        assert count_unsealed(connection) == 3
    trail.seal()
    trail.write(1)
    with trail.owner.connect() as connection:
        assert count_unsealed(connection) == 1


# Whatever an owner of the database writes, a verification finds it and ends


@pytest.mark.parametrize(
    "value",
    ["[]", "null", '"text"', "7", "{}", '{"position": 1e400}', '{"kind": "x"}'],
)
def test_a_document_in_the_database_that_is_no_checkpoint_is_forged(trail, tmp_path, value):
    set_up(trail, tmp_path / "checkpoints")
    statement = "UPDATE audit_checkpoints SET document = CAST(:document AS jsonb)"
    trail.tamper(statement, document=value)

    assert list_findings(trail) == [("checkpoint_forged", 6, None)]


@pytest.mark.parametrize(
    "changes",
    [
        {"audit_id": float("nan")},
        {"audit_id": float("inf")},
        {"signature": "ü"},
        {"signature": ["a"]},
        {"key_id": None},
    ],
    ids=str,
)
def test_a_document_in_the_store_that_no_signature_can_cover_is_forged(trail, tmp_path, changes):
    set_up(trail, tmp_path / "checkpoints")
    path = locate_checkpoint(trail)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    assert list_findings(trail) == [("checkpoint_forged", 6, None)]


def test_a_document_in_the_store_that_is_nested_beyond_reading_is_forged(trail, tmp_path):
    set_up(trail, tmp_path / "checkpoints")
    locate_checkpoint(trail).write_text("[" * 100_000)

    assert list_findings(trail) == [("checkpoint_forged", 6, None)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_value_that_became_unreadable_is_found_at_its_place_alone(trail, tmp_path, shape):
    set_up(trail, tmp_path / "checkpoints")
    change_column(*SHAPES[shape])(trail, PLACE)

    assert list_findings(trail) == [
        ("rows_unreadable", PLACE, PLACE),
        ("row_changed", PLACE, PLACE),
    ]


def test_rows_around_one_that_cannot_be_read_are_verified(trail, tmp_path):
    set_up(trail, tmp_path / "checkpoints")
    for place in (1, PLACE + 1):
        change_column("action", "'nothing'")(trail, place)
    change_column("created_at", "TIMESTAMPTZ '12000-01-01'")(trail, PLACE)

    changed = [found.position for found in trail.verify().findings if found.kind == "row_changed"]
    assert changed == [1, PLACE, PLACE + 1]


@pytest.mark.parametrize("value", ["infinity", "-infinity"])
def test_a_time_that_no_clock_shows_is_found(trail, tmp_path, value):
    set_up(trail, tmp_path / "checkpoints")
    change_column("created_at", f"TIMESTAMPTZ '{value}'")(trail, PLACE)

    assert ("row_changed", PLACE, PLACE) in list_findings(trail)
