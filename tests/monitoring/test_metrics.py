import subprocess
import sys

from monitoring.metrics import MULTIPROCESS_FOLDER, SCREENINGS, render_metrics, show_release


def test_a_library_that_sets_the_workers_folder_later_does_not_empty_the_metrics(
    monkeypatch, tmp_path
):
    """Importing Feast does."""
    monkeypatch.setenv(MULTIPROCESS_FOLDER, str(tmp_path))

    assert b"mhras_screenings_total" in render_metrics()[0]


def test_nothing_is_said_of_drift_before_it_was_measured():
    """Measured in a process of its own: another test may have set the score in this one."""
    code = "from monitoring.metrics import render_metrics; print(render_metrics()[0].decode())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "# TYPE mhras_consent_verifications_total counter" in done.stdout
    assert "\nmhras_drift_score" not in done.stdout


def test_only_the_release_being_served_is_marked():
    show_release("7")
    show_release("8")
    body = render_metrics()[0].decode()

    assert 'mhras_release_info{version="7"} 0.0' in body
    assert 'mhras_release_info{version="8"} 1.0' in body


def test_a_count_is_exposed_with_its_label():
    SCREENINGS.labels("low").inc()

    assert 'mhras_screenings_total{risk_band="low"}' in render_metrics()[0].decode()
