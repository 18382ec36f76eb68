"""Trees of files in a backup: stored once, removed when no backup needs them."""

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from infra.backup.store import BackupStore
from infra.backup.taking import prune_backups
from infra.backup.trees import KeptFile, TreeError, keep_tree, open_object, put_tree


def test_a_path_that_leaves_its_tree_is_refused(tmp_path: Path) -> None:
    for path in ("../outside", "/etc/outside", "a/../../outside", ""):
        with pytest.raises(TreeError, match="outside its tree"):
            put_tree(
                [KeptFile(path, 1, "o", "h")],
                BackupStore(str(tmp_path / "store")),
                lambda _source, _target: None,
                str(tmp_path / "tree"),
            )


def test_the_next_night_stores_what_the_day_added_and_nothing_twice(tmp_path: Path) -> None:
    lake, store = tmp_path / "lake", BackupStore(str(tmp_path / "store"))
    table = str(lake / "surveys")
    pl.DataFrame({"id": list(range(1000))}).write_delta(table)
    first = keep_tree(str(lake), "lake", store, shutil.copyfile)
    pl.DataFrame({"id": [7]}).write_delta(table, mode="append")
    second = keep_tree(str(lake), "lake", store, shutil.copyfile)
    third = keep_tree(str(lake), "lake", store, shutil.copyfile)

    assert first.added == len(first.files) == 2  # one file of data and one of the log
    assert (second.added, len(second.files)) == (2, 4)
    assert (third.added, third.added_bytes) == (0, 0)
    assert len(store.list_objects()) == 4


def test_a_file_written_anew_under_its_old_name_is_stored_anew(tmp_path: Path) -> None:
    store, file = BackupStore(str(tmp_path / "store")), tmp_path / "tree" / "_last_checkpoint"
    file.parent.mkdir()
    file.write_text("10")
    keep_tree(str(file.parent), "lake", store, shutil.copyfile)
    file.write_text("20")
    os.utime(file, (2_000_000_000, 2_000_000_000))
    (kept,) = keep_tree(str(file.parent), "lake", store, shutil.copyfile).files
    with open_object(kept, store, shutil.copyfile) as plain:
        assert plain.read_text() == "20"


def test_pruning_removes_the_objects_that_only_a_removed_backup_needed(tmp_path: Path) -> None:
    store, tree = BackupStore(str(tmp_path / "store")), tmp_path / "tree"
    tree.mkdir()
    (tree / "stays").write_text("stays")
    (tree / "leaves").write_text("leaves")
    begin = datetime(2026, 1, 1, 2, tzinfo=UTC)
    for day in range(40):
        if day == 2:
            (tree / "leaves").unlink()
        if day == 39:
            (tree / "new").write_text("of a backup under way")
        files = keep_tree(str(tree), "lake", store, shutil.copyfile).files
        objects = [file.object for file in files if file.path != "new"]
        store.write_manifest(begin + timedelta(days=day), {"trees": {"lake": {"objects": objects}}})
    for path in (tmp_path / "store" / "objects").rglob("*.age"):
        if path.read_text() != "of a backup under way":
            os.utime(path, (1_700_000_000, 1_700_000_000))

    prune_backups(store)

    left = {p.read_text() for p in (tmp_path / "store" / "objects").rglob("*.age")}
    assert left == {"stays", "of a backup under way"}
