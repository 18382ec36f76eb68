"""A drop is read from allowed folders and prefixes only."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
