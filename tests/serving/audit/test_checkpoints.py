"""Checkpoints in a bucket, as production keeps them."""

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
