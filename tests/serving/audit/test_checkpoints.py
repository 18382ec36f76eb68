"""Checkpoints in a folder, and in a bucket, as production keeps them."""

import fsspec
import pytest

from serving.audit.checkpoints import CheckpointStore, CheckpointStoreError
from serving.audit.sealer import sign_checkpoint
from serving.audit.signing import KeyRing
from serving.audit.verification import verify_trail
from tests.fixtures.audit_trail import SIGNER
from tests.fixtures.object_store import KEY_ID, SECRET, run_object_store


@pytest.fixture(scope="module")
def bucket():
    with run_object_store("audit") as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        # File systems of an earlier test's endpoint would be taken from fsspec's cache.
        fsspec.filesystem("s3").clear_instance_cache()
        yield "s3://audit"
        fsspec.filesystem("s3").clear_instance_cache()


def test_a_bucket_that_is_not_there_is_a_failure_and_not_made(bucket):
    mistyped = CheckpointStore("s3://no-such-bucket/chain")
    with pytest.raises(CheckpointStoreError):
        mistyped.write(1, {"position": 1})
    assert mistyped.list_positions() == []


def test_a_checkpoint_of_another_worker_is_listed_at_once(bucket):
    store, elsewhere = (
        CheckpointStore(f"{bucket}/shared"),
        f"{bucket}/shared/checkpoint-{2:015d}.json",
    )
    store.write(1, {"position": 1})
    assert store.list_positions() == [1]
    fsspec.filesystem("s3", skip_instance_cache=True).pipe_file(elsewhere, b"{}")

    assert store.list_positions() == [1, 2]


def test_a_trail_signed_into_a_bucket_verifies_until_its_tail_is_cut_off(trail, bucket):
    store, keys = CheckpointStore(f"{bucket}/chain"), KeyRing([SIGNER.public_key])
    trail.write(4)
    trail.seal()
    position = sign_checkpoint(trail.application, store, SIGNER)

    assert store.list_positions() == [position]
    assert verify_trail(trail.application, store, keys).intact

    trail.tamper("DELETE FROM audit_log WHERE id > 2", "DELETE FROM audit_chain WHERE position > 2")
    trail.tamper("DELETE FROM audit_checkpoints")
    assert not verify_trail(trail.application, store, keys).intact


# A folder


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "not" / "there yet"


@pytest.fixture
def store(folder):
    return CheckpointStore(f"{folder}/")


def test_a_folder_that_is_not_there_holds_no_checkpoint(store, folder):
    assert store.list_positions() == []
    assert not folder.exists()


def test_a_document_is_read_as_it_was_written(store):
    document = {"position": 3, "row_hash": "00ff", "signed_at": "2026-03-01T00:00:00+00:00"}
    store.write(3, document)

    assert store.read(3) == document


def test_positions_are_listed_in_order_of_their_numbers(store):
    for position in (10, 9, 100_000_000_000_000):
        store.write(position, {"position": position})

    assert store.list_positions() == [9, 10, 100_000_000_000_000]


@pytest.mark.parametrize(
    "name", ["checkpoint-1.json", "checkpoint-000000000000007.json.bak", "notes.txt"]
)
def test_a_file_of_another_name_is_no_checkpoint(store, folder, name):
    store.write(1, {"position": 1})
    (folder / name).write_text("{}")

    assert store.list_positions() == [1]


def test_a_document_is_text_that_an_auditor_reads(store, folder):
    store.write(1, {"position": 1, "kind": "mhras-audit-checkpoint"})

    text = (folder / "checkpoint-000000000000001.json").read_text()
    assert text == '{\n  "kind": "mhras-audit-checkpoint",\n  "position": 1\n}\n'


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"', "null"])
def test_what_is_no_json_object_is_read_as_none(store, folder, content):
    store.write(1, {"position": 1})
    (folder / "checkpoint-000000000000001.json").write_text(content)

    assert store.read(1) is None


def test_a_file_that_is_no_text_is_read_as_none(store, folder):
    store.write(1, {"position": 1})
    (folder / "checkpoint-000000000000001.json").write_bytes(b"\xff\xfe\x00")

    assert store.read(1) is None


def test_a_failure_names_its_kind_and_nothing_of_the_store(store):
    with pytest.raises(CheckpointStoreError) as failed:
        store.read(1)

    assert str(failed.value) == "FileNotFoundError"


def test_a_document_that_cannot_be_written_whole_is_not_there(store):
    with pytest.raises(CheckpointStoreError, match="TypeError"):
        store.write(1, {"position": object()})

    assert store.list_positions() == []
