"""`python -m serving.audit`: what an auditor without the API runs."""

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from serving.audit.__main__ import app
from tests.fixtures.api import JWT_SECRET, SALT, SIGNING_KEY
from tests.fixtures.audit_trail import SIGNER


def run(trail, url, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "serving.audit", *arguments],
        env={
            "PATH": os.environ["PATH"],
            "DATABASE_URL": url,
            "JWT_SECRET_KEY": JWT_SECRET,
            "ANONYMIZATION_SALT": SALT,
            "AUDIT_SIGNING_KEY": SIGNING_KEY,
            "AUDIT_CHECKPOINT_URL": str(trail.folder),
        },
        capture_output=True,
        text=True,
    )


def test_an_intact_trail_and_a_tampered_one_are_told_apart(trail, application_url):
    trail.write(3)
    trail.seal()
    trail.sign()
    intact = run(trail, application_url, "verify")
    trail.tamper("UPDATE audit_log SET action = 'nothing' WHERE id = 2")
    tampered = run(trail, application_url, "verify")

    assert (intact.returncode, intact.stdout) == (
        0,
        "audit trail intact; 3 rows, 1 checkpoints, the newest at 3\n",
    )
    assert tampered.returncode == 1
    assert tampered.stdout.startswith("row_changed: link 2, row 2\naudit trail NOT intact: 1")


def test_an_unreachable_database_is_neither(trail):
    result = run(trail, "postgresql://mhras:hidden@127.0.0.1:1/mhras", "verify")

    assert (result.returncode, result.stdout) == (2, "")
    assert "hidden" not in result.stderr


def test_the_public_key_is_printed(trail, application_url):
    assert run(trail, application_url, "public-key").stdout == SIGNER.public_key + "\n"


# The same commands in this process


@pytest.fixture
def invoke(monkeypatch, tmp_path):
    values = {
        "DATABASE_URL": "postgresql://mhras@127.0.0.1:1/mhras",
        "JWT_SECRET_KEY": JWT_SECRET,
        "ANONYMIZATION_SALT": SALT,
        "AUDIT_SIGNING_KEY": SIGNING_KEY,
        "AUDIT_CHECKPOINT_URL": str(tmp_path),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def write(path, content):
    path.write_text(content)
    return str(path)


@pytest.mark.parametrize("content", [None, "", "{"], ids=["absent", "empty", "cut off"])
def test_a_receipt_that_cannot_be_read_is_neither_genuine_nor_forged(invoke, tmp_path, content):
    path = tmp_path / "receipt.json"
    if content is not None:
        path.write_text(content)
    result = invoke("receipt", str(path))

    assert (result.exit_code, result.stdout) == (2, "")
    assert "cannot be read" in result.stderr


@pytest.mark.parametrize("content", ["[]", '"text"', "{}", '{"signature": "ü", "n": NaN}'])
def test_what_is_no_receipt_of_ours_is_not_genuine(invoke, tmp_path, content):
    result = invoke("receipt", write(tmp_path / "receipt.json", content))

    assert (result.exit_code, result.stdout) == (1, "receipt NOT genuine\n")


def test_a_receipt_is_genuine_until_it_is_changed(invoke, tmp_path):
    receipt = SIGNER.sign({"kind": "mhras-erasure-receipt", "erased_rows": {"predictions": 3}})
    changed = receipt | {"erased_rows": {"predictions": 2}}

    genuine = invoke("receipt", write(tmp_path / "receipt.json", json.dumps(receipt)))
    forged = invoke("receipt", write(tmp_path / "changed.json", json.dumps(changed)))
    assert (genuine.exit_code, genuine.stdout) == (0, "receipt genuine\n")
    assert (forged.exit_code, forged.stdout) == (1, "receipt NOT genuine\n")


def test_the_public_key_of_releases_needs_the_key_of_the_flows(invoke, monkeypatch):
    missing = invoke("public-key", "--release")
    assert (missing.exit_code, missing.stdout) == (2, "")
    assert "RELEASE_SIGNING_KEY" in missing.stderr
    monkeypatch.setenv("RELEASE_SIGNING_KEY", SIGNING_KEY)

    assert invoke("public-key", "--release").stdout == SIGNER.public_key + "\n"


def test_a_missing_setting_is_named(invoke, monkeypatch):
    monkeypatch.delenv("AUDIT_SIGNING_KEY")
    result = invoke("public-key")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "AUDIT_SIGNING_KEY" in result.stderr


def test_findings_are_printed_with_their_places(invoke, monkeypatch, trail, application_url):
    trail.write(3)
    trail.seal()
    trail.sign()
    trail.tamper("DELETE FROM audit_chain WHERE position = 2")
    monkeypatch.setenv("DATABASE_URL", application_url)
    monkeypatch.setenv("AUDIT_CHECKPOINT_URL", str(trail.folder))
    result = invoke("verify")

    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "link_removed: link 2",
        "chain_broken: link 3, row 3",
        "audit trail NOT intact: 2 findings; 2 rows, 1 checkpoints, the newest at 3",
    ]
