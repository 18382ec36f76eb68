"""Pulling from a FHIR server that misbehaves as real ones do, and ingesting what it gave."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from flows.bulk_import import find_last_time, import_from_server, locate_folder
from flows.lake.report import IngestionFailedError
from flows.sources.bulk.access import Access, BulkServerError, Client
from flows.sources.bulk.export import finish_export, pull_export
from tests.fixtures.bulk_server import BulkServer, later, run_bulk_server
from tests.fixtures.fhir import consent, observation, response
from tests.fixtures.ingestion import World, world

__all__ = ["world"]


@pytest.fixture(scope="module")
def keys() -> tuple[str, str]:
    """A private and a public key, PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private.decode(), public.decode()


@pytest.fixture
def server(keys: tuple[str, str]) -> Iterator[BulkServer]:
    with run_bulk_server(keys[1]) as running:
        survey = response({"44260-8": {"valueInteger": 1}}) | {"id": "q1"}
        given = consent(period={"start": "2024-01-01", "end": "2099-01-01"}) | {"id": "c1"}
        running.output = [("QuestionnaireResponse", [survey]), ("Consent", [given])]
        yield running


class Waits(list[float]):
    """Remembers how long it was asked to wait, and does not."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def access(server: BulkServer, keys: tuple[str, str], waits: Waits) -> Iterator[Access]:
    access = Access(server.url, Client("mhras", keys[0], "key-1"), waits)
    yield access
    access.close()


def list_files(folder: Path) -> dict[str, int]:
    files = folder.rglob("*.ndjson")
    return {str(f.relative_to(folder)): len(f.read_text().splitlines()) for f in files}


def test_a_server_that_never_recovers_is_given_up_by_name_without_a_token(
    access: Access, server: BulkServer, tmp_path: Path
) -> None:
    server.answers["/$export"] = [503] * 20
    with pytest.raises(BulkServerError, match=r"GET .*/\$export: 503 in 6 attempts") as caught:
        pull_export(access, tmp_path / "export")
    assert "token" not in str(caught.value)


def test_all_pages_of_a_manifest_are_pulled(access: Access, tmp_path: Path) -> None:
    export = pull_export(access, tmp_path / "export")
    assert export.transaction_time == "2025-05-01T00:00:00Z"
    assert list_files(tmp_path / "export") == {
        "QuestionnaireResponse.0001.ndjson": 1,
        "Consent.0002.ndjson": 1,
    }


def test_random_errors_are_tried_again(
    access: Access, server: BulkServer, waits: Waits, tmp_path: Path
) -> None:
    server.answers = {"/token": [502], "/$export": [500], "/files/output/0": [504, 500]}
    server.cut = {"/files/output/1"}
    pull_export(access, tmp_path / "export")
    assert len(list_files(tmp_path / "export")) == 2
    assert len(waits) == 5


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_the_wait_that_a_server_asks_for_is_kept(
    access: Access, server: BulkServer, waits: Waits, tmp_path: Path, form: str
) -> None:
    server.retry_after = "7200" if form == "seconds" else later(7200)
    server.answers["/status"] = [202, 429]
    pull_export(access, tmp_path / "export")
    assert len(waits) == 2
    assert min(waits) >= 7000


def test_a_server_of_stu4_is_asked_by_post(
    access: Access, server: BulkServer, tmp_path: Path
) -> None:
    server.post_only = True
    pull_export(access, tmp_path / "export", since="2025-01-01T00:00:00Z")
    assert server.since == ["2025-01-01T00:00:00Z"]


def test_a_token_that_ended_is_renewed(access: Access, server: BulkServer, tmp_path: Path) -> None:
    access._token, access._token_ends = "an old token", float("inf")
    pull_export(access, tmp_path / "export")
    assert server.asked["POST /token"] == 1


def test_an_export_goes_on_after_a_cut_and_downloads_nothing_twice(
    access: Access, server: BulkServer, tmp_path: Path
) -> None:
    server.answers["/files/output/1"] = [500] * 6
    with pytest.raises(BulkServerError):
        pull_export(access, tmp_path / "export")
    pull_export(access, tmp_path / "export")
    assert server.asked["GET /$export"] == 1
    assert server.asked["GET /files/output/0"] == 1
    assert len(list_files(tmp_path / "export")) == 2


def test_an_export_that_the_server_forgot_is_started_again(
    access: Access, server: BulkServer, tmp_path: Path
) -> None:
    server.forgets = 1
    pull_export(access, tmp_path / "export")
    assert server.asked["GET /$export"] == 2


def test_a_finished_export_is_deleted_on_the_server(
    access: Access, server: BulkServer, tmp_path: Path
) -> None:
    pull_export(access, tmp_path / "export")
    finish_export(access, tmp_path / "export")
    assert server.asked["DELETE /status"] == 1


def pull_into(world: World, server: BulkServer, key: Path, **more: Any) -> Any:
    return import_from_server(server.url, "mhras", str(key), "key-1", **more)


@pytest.fixture
def key_file(keys: tuple[str, str], tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    path.write_text(keys[0])
    return path


def test_the_next_import_asks_for_what_changed_and_takes_back_what_was_deleted(
    world: World, server: BulkServer, key_file: Path
) -> None:
    pull_into(world, server, key_file)
    assert world.read("surveys")["item_9"].to_list() == [1]
    entry = {"request": {"method": "DELETE", "url": "QuestionnaireResponse/q1"}}
    server.output = [("Observation", [observation("44260-8", valueInteger=2)])]
    server.deleted = [[{"resourceType": "Bundle", "type": "transaction", "entry": [entry]}]]
    report = pull_into(world, server, key_file)
    assert server.since == [None, "2025-05-01T00:00:00Z"]
    assert world.read("surveys")["item_9"].to_list() == [2]
    assert report.tables["surveys"].recomputed + report.tables["surveys"].corrected == 1


def test_nothing_of_an_export_is_left_on_disk(
    world: World, server: BulkServer, key_file: Path
) -> None:
    pull_into(world, server, key_file)
    assert not locate_folder(world.lake_url, server.url, "").exists()


def test_an_import_that_could_not_be_ingested_is_asked_for_again(
    world: World, server: BulkServer, key_file: Path
) -> None:
    bad = json.loads(json.dumps(server.output[0][1][0])) | {"authored": "2025"}
    server.output = [("QuestionnaireResponse", [bad]), server.output[1]]
    with pytest.raises(IngestionFailedError):
        pull_into(world, server, key_file)
    assert find_last_time(world.lake_url, server.url, "") is None
    assert not locate_folder(world.lake_url, server.url, "").exists()
