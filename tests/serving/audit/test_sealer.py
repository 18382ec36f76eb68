"""Sealing: every committed row once, in one chain, whoever seals."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from serving.audit.checkpoints import CheckpointStore, CheckpointStoreError
from serving.audit.sealer import ChainTamperedError, Sealer, sign_checkpoint
from tests.fixtures.audit_trail import SIGNER
from tests.fixtures.tampering import INSERT_LINK, compute_links


def count(trail, table):
    with trail.owner.connect() as connection:
        return connection.scalar(text(f"SELECT count(*) FROM {table}"))


def test_an_empty_trail_is_intact_and_has_nothing_to_sign(trail):
    assert (trail.seal(), trail.sign()) == (0, None)
    assert trail.verify().intact


def test_rows_are_sealed_once_and_signed_once(trail):
    trail.write(5)

    assert (trail.seal(), trail.seal()) == (5, 0)
    assert (trail.sign(), trail.sign()) == (5, None)
    found = trail.verify()
    assert (found.intact, found.rows, found.checkpoints) == (True, 5, 1)


def test_more_rows_than_one_transaction_takes_are_all_sealed(trail):
    trail.write(2_500)

    assert trail.seal() == 2_500
    assert trail.verify().rows == 2_500


def test_a_row_that_commits_after_a_later_one_is_sealed_too(trail):
    with trail.owner.connect() as slow:
        slow.execute(
            text(
                "INSERT INTO audit_log (created_at, event_type, user_id, user_role, data_types,"
                " action, result, details) VALUES (now(), 'e', 'u', 'r', '{}', 'a', 's', '{}')"
            )
        )
        trail.write(3)
        assert trail.seal() == 3
        slow.commit()

    assert trail.seal() == 1
    assert trail.verify().intact


def test_workers_that_seal_at_once_make_one_chain(trail):
    def work(_number):
        trail.write(20)
        return trail.seal()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(24)))
    trail.seal()

    assert count(trail, "audit_chain") == count(trail, "audit_log") == 480
    assert trail.verify().intact


def test_an_id_that_no_row_took_is_no_finding(trail):
    """A rolled-back row leaves its id behind."""
    trail.write(1)
    trail.tamper("SELECT setval('audit_log_id_seq', 50)")
    trail.write(1)
    trail.seal()

    assert trail.verify().intact


def test_a_store_that_cannot_be_written_leaves_no_checkpoint_behind(trail):
    trail.write(1)
    trail.seal()
    blocked = trail.folder
    blocked.write_text("a file where the folder should be")

    with pytest.raises(CheckpointStoreError):
        sign_checkpoint(trail.application, CheckpointStore(str(blocked)), SIGNER)
    assert count(trail, "audit_checkpoints") == 0
    blocked.unlink()
    assert trail.sign() == 1


def test_a_checkpoint_stored_just_before_a_crash_is_taken_up(trail):
    trail.write(2)
    trail.seal()
    trail.sign()
    trail.tamper("DELETE FROM audit_checkpoints")

    assert trail.sign() is None
    assert count(trail, "audit_checkpoints") == 1
    assert trail.verify().intact


def test_nothing_is_signed_that_contradicts_an_earlier_checkpoint(trail):
    trail.write(3)
    trail.seal()
    trail.sign()
    before = (trail.folder / "checkpoint-000000000000003.json").read_text()
    trail.tamper("DELETE FROM audit_checkpoints", "DELETE FROM audit_chain")
    trail.tamper("DELETE FROM audit_log WHERE id = 1")
    trail.write(1)
    trail.seal()

    with pytest.raises(ChainTamperedError):
        trail.sign()
    assert (trail.folder / "checkpoint-000000000000003.json").read_text() == before


def test_a_checkpoint_says_what_it_signs(trail):
    trail.write(2)
    trail.seal()
    trail.sign()
    (path,) = trail.folder.iterdir()
    document = json.loads(path.read_text())

    assert (document["position"], document["previous_position"]) == (2, None)
    assert document["key_id"] == SIGNER.key_id


def test_the_sealer_seals_and_signs_by_itself_and_at_its_end(trail):
    sealer = Sealer(trail.application, trail.store, SIGNER, 0.01, 3600)
    sealer.start()
    trail.write(4)
    sealer.stop()

    assert count(trail, "audit_chain") == 4
    assert trail.verify().newest_checkpoint == 4


BOGUS = (
    "INSERT INTO audit_chain (position, audit_id, previous_hash, row_hash, sealed_at) "
    "SELECT {position}, {audit_id}, row_hash, row_hash, now() FROM audit_chain "
    "ORDER BY position DESC LIMIT 1"
)


@pytest.mark.parametrize(
    ("position", "audit_id"),
    [("9223372036854775807", "4"), ("4", "4611686018427387904"), ("5", "4")],
    ids=["position far ahead", "row that does not exist", "position left out"],
)
def test_the_application_cannot_stop_sealing_by_a_link_of_its_own(trail, position, audit_id):
    trail.write(3)
    trail.seal()
    trail.write(1)
    with pytest.raises(IntegrityError), trail.application.begin() as connection:
        connection.execute(text(BOGUS.format(position=position, audit_id=audit_id)))

    assert trail.seal() == 1
    assert trail.verify().intact


@pytest.mark.parametrize("sealed_at", ["12000-01-01", "4000-01-01 BC", "infinity"])
def test_the_application_cannot_stop_sealing_by_the_time_of_a_link(trail, sealed_at):
    """The link is one that the sealer would make; its time is one that Python cannot hold."""
    trail.write(3)
    trail.seal()
    trail.write(1)
    link = compute_links(trail)[-1] | {"sealed_at": sealed_at}
    with trail.application.begin() as connection:
        connection.execute(INSERT_LINK, link)
    trail.write(1)

    assert (trail.seal(), trail.sign()) == (1, 5)
    assert trail.verify().intact


FORGED_CHECKPOINTS = {
    "far ahead": (2**62, "now()", "'{}'"),
    "at the next head": (5, "now()", "'{}'"),
    "of a year that Python cannot hold": (2**62, "TIMESTAMPTZ '12000-01-01'", "'{}'"),
    "nested beyond reading": (2**62, "now()", f"'{'[' * 5_000}{']' * 5_000}'"),
    "with a number of 5,000 digits": (2**62, "now()", "'" + "9" * 5_000 + "'"),
}


@pytest.mark.parametrize("name", FORGED_CHECKPOINTS)
def test_the_application_cannot_stop_signing_by_a_checkpoint_of_its_own(trail, name):
    position, signed_at, document = FORGED_CHECKPOINTS[name]
    trail.write(4)
    trail.seal()
    trail.sign()
    with trail.application.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO audit_checkpoints (position, signed_at, document)"
                f" VALUES ({position}, {signed_at}, CAST({document} AS jsonb))"
            )
        )
    for _ in range(2):
        trail.write(1)
        trail.seal()
        trail.sign()

    assert max(trail.store.list_positions()) == 6
    kinds = {found.kind for found in trail.verify().findings}
    assert kinds == {"checkpoint_forged"} | (
        {"checkpoint_removed_outside"} if position > 6 else set()
    )
