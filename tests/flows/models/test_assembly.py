"""A release put together of its members, with what is missing taken into account."""

from datetime import date

import numpy as np
import polars as pl
import pytest

from feature_repo.catalogue import list_model_inputs
from feature_repo.consent_terms import DATA_TYPES
from feature_repo.weekly_sequence import SEQUENCE_CHANNELS
from flows.datasets.rows import ModelRows
from flows.models.assembly import UnseenRows, describe_features, predict_release
from flows.models.data_types import blank_data_types, find_missing
from mlruns_config.heads import Calibration, Stacker
from tests.fixtures.manifests import make_manifest

INPUTS = list_model_inputs()
DATES = pl.Series([date(2024, 1, 1)] * 5)
IDENTITY = Calibration(kind="identity", inputs=[0, 1], outputs=[0, 1])


def make_rows(rows: int = 12) -> ModelRows:
    features = np.ones((rows, len(INPUTS)), np.float32)
    return ModelRows(features, np.ones((rows, 26, len(SEQUENCE_CHANNELS)), np.float32))


class CountsKnown:
    """A member that says which share of its columns is known."""

    def predict(self, rows: ModelRows) -> np.ndarray:
        return 0.1 + 0.8 * (~np.isnan(rows.features)).mean(axis=1)


ONLY = Stacker(intercept=0, coefficients={"lightgbm": 1})


def test_a_blanked_data_type_is_gone_from_columns_and_channels():
    rows = make_rows()
    blanked = blank_data_types(rows, ("wearable", "emr"))

    gone = [column.data_type in ("wearable", "emr") for column in INPUTS]
    assert np.isnan(blanked.features).all(axis=0).tolist() == gone
    gone = [data_type != "survey" for _, _, data_type in SEQUENCE_CHANNELS.values()]
    assert np.isnan(blanked.sequences).all(axis=(0, 1)).tolist() == gone
    assert not np.isnan(rows.features).any()  # a copy


@pytest.mark.parametrize("missing", [(), ("wearable",), ("survey", "emr"), DATA_TYPES])
def test_what_a_row_lacks_is_found(missing):
    found = find_missing(blank_data_types(make_rows(2), missing))
    assert found.tolist() == [[kind in missing for kind in DATA_TYPES]] * 2


def test_each_part_is_asked_of_its_own_members_without_what_is_missing():
    class Never:
        def predict(self, rows: ModelRows) -> np.ndarray:
            raise AssertionError("a member without weight was asked")

    class Constant:
        def predict(self, rows: ModelRows) -> np.ndarray:
            return np.full(len(rows), 0.2)

    parts = [
        ({"lightgbm": CountsKnown(), "tft": Never()}, make_rows(2)),
        ({"lightgbm": Constant()}, make_rows(3)),
    ]
    unseen = UnseenRows(parts, np.zeros(5, bool), pl.Series(list("abcde")), DATES)

    assert unseen.stack(ONLY) == pytest.approx([0.9, 0.9, 0.2, 0.2, 0.2])
    without = unseen.stack(ONLY, ("survey",))
    assert without[0] == without[1] < 0.9
    assert without[2:] == pytest.approx([0.2] * 3)


def test_a_stack_without_weights_gives_every_row_its_intercept():
    parts = [({"tft": CountsKnown()}, make_rows(3))]
    unseen = UnseenRows(parts, np.zeros(3, bool), pl.Series(), DATES)
    assert unseen.stack(Stacker(intercept=0, coefficients={})).tolist() == [0.5] * 3


def test_a_release_says_what_its_only_member_says():
    manifest = make_manifest(stacker=ONLY, calibration=IDENTITY)
    predicted = predict_release({"lightgbm": CountsKnown()}, manifest, make_rows(3))
    assert predicted == pytest.approx(np.full(3, 0.9))


def test_usual_ranges_are_those_of_the_middle_eight_tenths():
    inputs = np.tile(np.arange(101, dtype=np.float32)[:, None], len(INPUTS))
    inputs[:, 0] = np.nan
    described = describe_features(inputs)

    assert [feature.name for feature in described] == [column.name for column in INPUTS]
    assert (described[0].usual_low, described[0].usual_high) == (None, None)
    assert (described[1].usual_low, described[1].usual_high) == (10, 90)
