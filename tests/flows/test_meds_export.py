"""The consenting cohort as a MEDS dataset: valid, complete, without other people."""

import json

import meds
import polars as pl
import pyarrow.parquet as pq
import pytest

from feature_repo.instruments import PHQ9
from flows.datasets.interchange import SubjectCollisionError, name_answer, number_subjects
from flows.lake.consents import read_consented_types
from flows.lake.tables import scan_table
from flows.meds_export import TargetNotEmptyError, export_meds, hash_files


@pytest.fixture(scope="module")
def exported(trained_world, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        trained_world.enter(patch)
        root = tmp_path_factory.mktemp("meds") / "dataset"
        yield root, export_meds(str(root))


def read(root, *names):
    return pl.concat(pl.read_parquet(path) for path in sorted(root.joinpath(*names).glob("*")))


def test_a_folder_with_files_is_refused(tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(TargetNotEmptyError):
        export_meds.fn(str(tmp_path))


def test_two_pseudonyms_of_one_number_are_refused():
    with pytest.raises(SubjectCollisionError):
        number_subjects(pl.Series(["0" * 32, "0" * 31 + "1"]))


def test_every_table_is_valid_meds(exported):
    root, _ = exported
    for path in (root / meds.data_subdirectory).glob("*.parquet"):
        meds.DataSchema.validate(pq.read_table(path))
    meds.SubjectSplitSchema.validate(pq.read_table(root / meds.subject_splits_filepath))
    meds.CodeMetadataSchema.validate(pq.read_table(root / meds.code_metadata_filepath))
    for path in (root / "labels").glob("*.parquet"):
        meds.LabelSchema.validate(pq.read_table(path))
    described = json.loads((root / meds.dataset_metadata_filepath).read_text())
    meds.DatasetMetadataSchema.validate(described)


def test_a_subject_is_in_one_file_in_order_of_time_and_in_one_split(exported):
    root, counts = exported
    files = [pl.read_parquet(path) for path in (root / meds.data_subdirectory).glob("*.parquet")]
    subjects = [set(one["subject_id"]) for one in files]

    assert sum(map(len, subjects)) == len(set().union(*subjects)) == counts.subjects
    for rows in files:
        assert rows.equals(rows.sort("subject_id", "time", "code"))
    splits = pl.read_parquet(root / meds.subject_splits_filepath)
    assert set(splits["subject_id"]) == set().union(*subjects)
    assert set(splits["split"]) == {"train", "tuning", "held_out"}


def test_it_holds_the_consenting_peoples_answers_and_no_others(exported, trained_world):
    root, _ = exported
    consented = read_consented_types(trained_world.engine, purposes=["training"])
    surveys = scan_table(trained_world.lake_url, "surveys").collect()
    allowed = surveys.join(consented.filter("survey"), on="anonymized_id", how="semi")
    expected = allowed.filter(pl.col("instrument") == PHQ9.name)["item_1"].drop_nulls()
    rows = read(root, meds.data_subdirectory)
    found = rows.filter(pl.col("code") == name_answer(PHQ9.name, "item_1"))

    assert 0 < allowed.height < surveys.height
    assert found.height == expected.len()
    assert found["numeric_value"].sum() == expected.sum()


def test_labels_are_those_of_training(exported, trained_world):
    root, counts = exported
    labels = pl.read_parquet(root / "labels" / "adverse_course.parquet")

    assert labels.height > 0
    assert counts.labels >= labels.height
    assert 0 < labels["boolean_value"].sum() < labels.height


def test_every_code_is_listed_and_answers_are_described(exported):
    root, counts = exported
    listed = pl.read_parquet(root / meds.code_metadata_filepath)

    assert set(read(root, meds.data_subdirectory)["code"]) == set(listed["code"])
    assert listed.height == counts.codes
    described = dict(listed.select("code", "description").iter_rows())
    assert described[name_answer(PHQ9.name, "item_9")] == "PHQ-9 item 9, 0 to 3"


def test_the_digest_is_of_the_files_and_logged_without_a_row(exported, trained_world):
    import mlflow

    root, counts = exported
    assert hash_files(root) == counts.digest
    mlflow.set_tracking_uri(trained_world.tracking_uri)
    (run,) = mlflow.search_runs(experiment_names=["mhras-meds-export"], output_format="list")
    assert run.data.tags["digest"] == counts.digest
    assert run.data.params["subjects"] == str(counts.subjects)
