"""A new Production release is taken up without dropping a request; a bad one is not."""

import threading
import time

import pytest

from serving.releases.registry import NoProductionVersionError, Registry
from serving.releases.watcher import ReleaseWatcher
from tests.fixtures.api import (
    HIGH_ANSWERS,
    MemoryReader,
    make_headers,
    run_app,
)

PATIENCE_SECONDS = 20


@pytest.fixture
def watcher(mlflow_url, releases):
    """A watcher that looks only when a test says so, with a release loaded."""
    releases.publish()
    watcher = ReleaseWatcher(Registry(mlflow_url), poll_seconds=3600)
    watcher.start()
    yield watcher
    watcher.stop()


def tamper(releases):
    pin = releases.pins[0]
    broken = pin.model_copy(update={"artifacts": pin.artifacts | {"linear.json": "0" * 64}})
    return [broken, releases.pins[1]]


def test_a_tampered_release_is_refused_and_the_loaded_one_stays(watcher, releases):
    loaded = watcher.current
    tampered = releases.publish(members=tamper(releases))
    watcher.refresh()

    assert watcher.current is loaded
    assert watcher.problem.version == tampered
    assert "SHA-256 differs" in watcher.problem.reason


def test_a_rejected_release_is_not_downloaded_again(watcher, releases, monkeypatch):
    releases.publish(members=tamper(releases))
    watcher.refresh()
    problem = watcher.problem
    downloads = []
    monkeypatch.setattr(Registry, "download", lambda *arguments: downloads.append(arguments))
    watcher.refresh()

    assert watcher.problem == problem
    assert downloads == []


def test_a_good_release_after_a_rejected_one_is_loaded(watcher, releases):
    releases.publish(members=tamper(releases))
    watcher.refresh()
    version = releases.publish()
    watcher.refresh()

    assert watcher.current.version == version
    assert watcher.problem is None


def test_a_half_done_transition_is_not_followed(watcher, releases):
    loaded = watcher.current
    version = releases.publish(promote=False)
    releases.set_stage(version)
    watcher.refresh()

    assert watcher.current is loaded
    assert f"stage Production is version {version}" in watcher.problem.reason


def test_a_rollback_is_followed(watcher, releases):
    first = watcher.current.version
    releases.publish()
    watcher.refresh()
    releases.promote(first)
    watcher.refresh()

    assert watcher.current.version == first


def test_the_loaded_release_stays_when_production_is_withdrawn(watcher, releases):
    loaded = watcher.current
    releases.withdraw()
    watcher.refresh()

    assert watcher.current is loaded
    assert "has no version in stage Production" in watcher.problem.reason


def test_the_loaded_release_stays_while_mlflow_is_down(watcher, monkeypatch):
    loaded = watcher.current
    monkeypatch.setattr(watcher, "_registry", Registry("http://127.0.0.1:1"))
    watcher.refresh()

    assert watcher.current is loaded
    assert watcher.problem.reason == "MLflow: ConnectError"


def test_a_worker_that_starts_before_mlflow_waits_for_no_poll(mlflow_url, releases, monkeypatch):
    releases.publish()
    watcher = ReleaseWatcher(Registry("http://127.0.0.1:1"), poll_seconds=3600)
    watcher.start()
    assert watcher.current is None

    monkeypatch.setattr(watcher, "_registry", Registry(mlflow_url))
    until = time.monotonic() + PATIENCE_SECONDS
    while watcher.current is None and time.monotonic() < until:
        time.sleep(0.1)
    assert watcher.current is not None
    watcher.stop()


def test_an_unknown_model_has_no_production_version(mlflow_url):
    registry = Registry(mlflow_url)
    with pytest.raises(NoProductionVersionError, match="has no version"):
        registry.find_production_version("mhras-unheard-of")
    registry.close()


def test_a_new_release_is_taken_up_while_requests_run(settings, releases, grant):
    individual = grant()
    first, seen, done = releases.publish(), [], threading.Event()
    body = {"anonymized_id": individual, "survey_data": {"phq9": HIGH_ANSWERS}}

    with run_app(settings, MemoryReader()) as client:

        def keep_screening():
            while not done.is_set():
                response = client.post("/screen", json=body, headers=make_headers())
                seen.append((response.status_code, response.json()["release"]["version"]))

        threads = [threading.Thread(target=keep_screening) for _ in range(2)]
        for thread in threads:
            thread.start()
        second = releases.publish()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (200, second) not in seen and time.monotonic() < deadline:
            time.sleep(0.05)
        done.set()
        for thread in threads:
            thread.join()

    assert {status for status, _ in seen} == {200}
    assert {version for _, version in seen} == {first, second}
