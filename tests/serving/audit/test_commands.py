"""`python -m serving.audit`: what an auditor without the API runs."""

import os
import subprocess
import sys

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
