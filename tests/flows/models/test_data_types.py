"""Missing patterns: named alike in training and serving, and learnt from in copies."""

import numpy as np
import pytest

from flows.models.data_types import (
    add_blanked_copies,
    blank_data_types,
    find_patterns,
    keep_features,
)
from mlruns_config.missing import list_patterns, name_pattern
from serving.scoring.estimate import find_pattern, list_missing_data
from tests.fixtures.drawn_rows import NAMES, draw_fitting_data, draw_rows
from tests.fixtures.manifests import make_manifest
from tests.fixtures.simulated_rows import simulate_fitting_data


def describe_columns():
    from flows.models.assembly import describe_features

    return describe_features(draw_rows(50, 1).features)


@pytest.mark.parametrize("pattern", list_patterns(), ids=name_pattern)
def test_training_and_serving_name_a_pattern_alike(pattern):
    rows = blank_data_types(draw_rows(20, 2), pattern)
    manifest = make_manifest(features=describe_columns())
    vector = rows.features[:1]
    missing = list_missing_data(manifest, vector)

    assert set(find_patterns(rows)) == {name_pattern(pattern)}
    assert find_pattern(manifest, vector, missing) == name_pattern(pattern)


def test_history_is_no_pattern_of_its_own_where_the_questionnaire_is_missing():
    assert name_pattern(["survey", "history", "emr"]) == "survey+emr"
    assert len(list_patterns()) == len({name_pattern(one) for one in list_patterns()}) == 12


def test_each_row_has_a_copy_that_lacks_something_and_keeps_its_label():
    data = draw_fitting_data()
    learnt = add_blanked_copies(data)
    rows = len(data.rows)

    assert len(learnt.rows) == 2 * rows
    assert np.array_equal(learnt.rows.features[:rows], data.rows.features, equal_nan=True)
    assert np.array_equal(learnt.labels[rows:], data.labels)
    assert "none" not in find_patterns(learnt.rows.select(np.arange(rows, 2 * rows)))


def test_a_copy_changes_nothing_but_what_it_lacks():
    data = draw_fitting_data()
    copies = add_blanked_copies(data).rows.features[len(data.rows) :]
    kept = ~np.isnan(copies)

    assert (copies[kept] == data.rows.features[kept]).all()
    assert kept[:, NAMES.index("age")].mean() > 0.8


def test_without_the_weeks_the_copies_have_the_same_features():
    data = simulate_fitting_data(200)
    whole, features = (add_blanked_copies(one) for one in (data, keep_features(data)))
    assert np.array_equal(whole.rows.features, features.rows.features, equal_nan=True)
    assert features.rows.sequences.size == 0
