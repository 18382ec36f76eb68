"""Simulated people and real ones never share a lake."""

import polars as pl
import pytest
from deltalake import write_deltalake

from flows.lake.origin import (
    MixedOriginError,
    is_simulated,
    mark_simulated,
    require_unsimulated,
)


def test_a_drop_is_refused_where_simulated_people_are(tmp_path):
    mark_simulated(str(tmp_path))
    with pytest.raises(MixedOriginError, match="holds simulated people"):
        require_unsimulated(str(tmp_path))


def test_simulated_people_are_refused_where_others_are(tmp_path):
    write_deltalake(tmp_path / "people", pl.DataFrame({"anonymized_id": ["a"]}).to_arrow())
    with pytest.raises(MixedOriginError, match="not simulated"):
        mark_simulated(str(tmp_path))
    assert not is_simulated(str(tmp_path))


def test_a_lake_stays_simulated_when_it_is_marked_again(tmp_path):
    assert not is_simulated(str(tmp_path))
    mark_simulated(str(tmp_path))
    write_deltalake(tmp_path / "people", pl.DataFrame({"anonymized_id": ["a"]}).to_arrow())
    mark_simulated(str(tmp_path))

    assert is_simulated(str(tmp_path))
