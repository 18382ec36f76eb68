"""`make run` itself: the whole system started, shown and stopped. Minutes, so nightly."""

import os
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.cohort import simulate_cohort
from flows.simulation.fhir import write_fhir_drop
from infra.local.postgres import remove_root_state
from tests.fixtures.local_runs import read_until_ready, start_local_run
from tests.fixtures.processes import list_orphans

pytestmark = pytest.mark.nightly

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stack")
    yield folder
    remove_root_state(folder / "postgres")


def start(state: Path, *options: str) -> subprocess.Popen[str]:
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return start_local_run(PROJECT, state, *options, environment=environment)


def test_a_simulated_cohort_goes_all_the_way_to_an_answered_screening(state: Path) -> None:
    shown, _ = (run := start(state, "--once", "--people", "2000")).communicate(timeout=900)

    assert run.returncode == 0, shown
    assert "to Production: promoted" in shown
    assert "review priority" in shown
    assert "not a diagnosis" in shown
    assert list_orphans(state) == []


def test_the_next_start_serves_at_once_and_ctrl_c_stops_everything(state: Path) -> None:
    run = start(state)
    shown = read_until_ready(run)
    run.send_signal(signal.SIGINT)
    rest, _ = run.communicate(timeout=120)

    assert run.returncode == 0, shown + rest
    assert "pipeline:" not in shown
    assert list_orphans(state) == []


def test_what_a_kill_left_behind_is_stopped_at_the_next_start(state: Path) -> None:
    run = start(state)
    read_until_ready(run)
    run.kill()
    run.communicate()
    time.sleep(1)
    assert list_orphans(state) != []

    shown, _ = (again := start(state, "--once")).communicate(timeout=300)

    assert again.returncode == 0, shown
    assert "left running by a crash" in shown
    assert list_orphans(state) == []


def test_real_people_are_not_mixed_with_a_simulated_cohort(state: Path, tmp_path: Path) -> None:
    shown, _ = (run := start(state, "--once", "--drop", str(tmp_path))).communicate(timeout=60)

    assert run.returncode == 1
    assert "must not be mixed" in shown
    assert list_orphans(state) == []


def test_a_fhir_export_too_small_to_judge_a_release_ends_in_words(tmp_path: Path) -> None:
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    write_fhir_drop(simulate_cohort(60, 1, yesterday, seed=3), tmp_path / "drop")
    state = tmp_path / "state"

    run = start(state, "--once", "--drop", str(tmp_path / "drop"))
    shown, _ = run.communicate(timeout=600)
    remove_root_state(state / "postgres")

    assert run.returncode == 1
    assert "labelled index dates" in shown
    assert list_orphans(state) == []
