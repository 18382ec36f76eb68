"""A drop is read from allowed folders and prefixes only."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.utilities.schema_tools import validate

from flows.ingestion import ingest
from flows.pipeline import run_pipeline
from flows.sources.locations import DropLocationError, check_location, split_locations

ANYWHERE = split_locations("/,s3://")
ONE_BUCKET = split_locations("s3://drops/clinic")


@pytest.mark.parametrize(
    "drop",
    [
        *("http://169.254.169.254/latest", "https://example.org/d", "ftp://h/d", "memory://d"),
        *("zip://a::http://h/d.zip", "simplecache::http://h/d", "HTTP://h/d", "github://o:r@/d"),
    ],
)
def test_other_schemes_and_chained_urls_are_refused_by_default(drop):
    with pytest.raises(DropLocationError, match="DROP_LOCATIONS allows /, s3://"):
        check_location(drop, ANYWHERE)


@pytest.mark.parametrize(
    "drop",
    ["s3://drops", "s3://drops/clinic2", "s3://drops-evil/clinic", "s3://drops/clinic/../x", "/d"],
)
def test_a_prefix_allows_whole_segments_only(drop):
    with pytest.raises(DropLocationError):
        check_location(drop, ONE_BUCKET)


@pytest.mark.parametrize("name", ["Zéphyrine Quellbrook", "Anna Smith", "a\tb", "d?x", ""])
def test_a_drop_named_as_a_person_may_be_is_refused_without_repeating_it(name):
    with pytest.raises(DropLocationError, match="by date or number") as refusal:
        check_location(f"s3://drops/{name}" if name else "", ANYWHERE)
    assert not name or name not in str(refusal.value)


@pytest.mark.parametrize("flow", [ingest, run_pipeline])
def test_prefect_refuses_such_a_name_before_it_stores_a_run(flow):
    """As its server does for runs of a deployment, by the schema of the parameters."""
    declared = {"properties": {"drop": flow.parameters.properties["drop"]}, "type": "object"}

    assert validate({"drop": "s3://drops/2025-03"}, declared) == []
    assert validate({"drop": "s3://drops/Zéphyrine Quellbrook"}, declared) != []


def test_a_link_out_of_an_allowed_folder_is_refused(tmp_path):
    allowed, outside = tmp_path / "drops", tmp_path / "outside"
    allowed.mkdir()
    outside.mkdir()
    os.symlink(outside, allowed / "link")
    for drop in (allowed / "link", allowed / ".." / "outside", f"file://{outside}"):
        with pytest.raises(DropLocationError):
            check_location(str(drop), [str(allowed)])


def test_drops_in_allowed_locations_pass(tmp_path):
    check_location(str(tmp_path / "new"), [str(tmp_path)])
    check_location(f"file://{tmp_path}", [str(tmp_path)])
    check_location("s3://drops/clinic/2026-11", ONE_BUCKET)
    check_location("s3://any/where", ANYWHERE)


@given(st.text(max_size=30))
def test_the_message_never_holds_the_drop(name):
    drop = f"http://host/xx{name}xx"
    with pytest.raises(DropLocationError) as caught:
        check_location(drop, ANYWHERE)
    assert drop not in str(caught.value)
