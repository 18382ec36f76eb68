"""`make story` comes true: every act checks what it tells. Minutes, so nightly."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local.postgres import remove_root_state
from tests.fixtures.processes import list_orphans

pytestmark = pytest.mark.nightly

PROJECT = Path(__file__).parents[2]
ACTS = (
    "release 1 is Production and answers",
    "drift score",
    "the retraining makes a challenger",
    "it scores in shadow, answering no request",
    "rollout flow: shadow to traffic 0.1",
    "rollout flow: traffic 0.1 to traffic 0.5",
    "story operator: Staging to Production",
    "was rolled back to release 1",
    "gone from the database",
    "the receipt's signature verifies",
)


def test_the_story_comes_true(tmp_path: Path) -> None:
    state = tmp_path / "story"
    command = [sys.executable, "-m", "infra.local.story", "--once", "--state", str(state)]
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    told = subprocess.run(
        command,
        cwd=PROJECT,
        env=kept,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1800,
        check=False,
    )
    remove_root_state(state / "postgres")

    assert told.returncode == 0, told.stdout
    places = [told.stdout.find(act) for act in ACTS]
    assert -1 not in places, told.stdout
    assert places == sorted(places)
    assert list_orphans(state) == []
