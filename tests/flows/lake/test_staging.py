"""Where checked rows wait until they land."""

import tempfile
from pathlib import Path

import pytest

from flows.lake.staging import open_staging
from flows.sources.locations import find_import_root

LAKES = ("s3://bucket/lake", "s3://bucket/other", "s3://another/lake")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_an_ingestion_into_one_remote_lake_leaves_what_another_staged() -> None:
    kept = open_staging(LAKES[0]) / "rows.parquet"
    kept.touch()
    for lake in LAKES[1:]:
        open_staging(lake)
    assert kept.exists()


def test_what_a_killed_run_left_of_a_remote_lake_is_removed() -> None:
    left = open_staging(LAKES[0]) / "rows.parquet"
    left.touch()
    assert open_staging(f"{LAKES[0]}/") == left.parent
    assert not left.exists()


def test_exports_for_one_remote_lake_lie_apart_from_those_for_another() -> None:
    assert len({find_import_root(lake) for lake in LAKES}) == len(LAKES)
