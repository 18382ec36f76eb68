"""The model card: every fact or an error, and a page that loads nothing."""

from dataclasses import replace
from datetime import date
from html.parser import HTMLParser

import pytest
from jinja2 import UndefinedError

from mlruns_config.model_card import (
    CHECKLIST,
    CardFacts,
    render_card,
    render_page,
)
from mlruns_config.release import ReleaseManifest, ScoreMap
from tests.fixtures.manifests import make_manifest

LINEAGE = {
    "tables": {
        "survey": {"version": 3, "rows": 12345, "digest": "d" * 64},
        "outcomes": {"version": None, "rows": 0, "digest": ""},
    },
    "validation": {"run_id": "run-7", "success": "true"},
    "feature_service_hash": "f" * 64,
    "environment": {"python": "3.11.7", "packages": "e" * 64},
    "git_commit": "c" * 40,
    "flow_run_id": "",
}
FACTS = CardFacts(
    metrics={"rows": 5000.0, "held_out_rows": 1700.0, "prevalence": 0.123},
    metrics_table="| metric | value |\n|---|---|\n| auroc | 0.81 |",
    groups_table="| group | rows |\n|---|---|\n| women | 900 |",
    decisions={"lightgbm": "+0.021 AUROC"},
    period=(date(2023, 1, 1), date(2025, 6, 30)),
    horizon_days=90,
)


def make_release(**changes) -> ReleaseManifest:
    score_map = ScoreMap(
        probabilities=[0, 0.2, 1],
        scores=[0, 50, 100],
        operating_points={"50": "the tenth most at risk"},
    )
    return make_manifest(**({"lineage": LINEAGE, "score_map": score_map} | changes))


class Loader(HTMLParser):
    """Collects what a browser would load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("img", "script", "link", "iframe", "object", "embed") or "src" in dict(attrs):
            self.loaded.append(tag)


@pytest.mark.parametrize("fact", ["rows", "held_out_rows", "prevalence"])
def test_an_unknown_metric_is_an_error_that_names_it(fact):
    metrics = {name: value for name, value in FACTS.metrics.items() if name != fact}
    with pytest.raises(UndefinedError, match=fact):
        render_card(make_release(), replace(FACTS, metrics=metrics))


@pytest.mark.parametrize("fact", sorted(LINEAGE))
def test_unknown_lineage_is_an_error_that_names_it(fact):
    lineage = {name: value for name, value in LINEAGE.items() if name != fact}
    with pytest.raises(UndefinedError, match=fact):
        render_card(make_release(lineage=lineage), FACTS)


def test_a_card_tells_purpose_data_members_and_operating_points():
    card = render_card(make_release(), FACTS, version=4)

    assert card.startswith("# Model card: mhras-risk version 4\n")
    for words in (
        "within 90 days",
        "5,000 labelled index dates\nfrom 2023-01-01 to 2025-06-30, outcome in 12.3%",
        "Environment: Python 3.11.7, packages `eeeeeeeeeeeeeeee`",
        "| survey | 3 | 12,345 | `dddddddddddddddd` |",
        "| outcomes | none | 0 | `-` |",
        "run `run-7`, passed",
        "| lightgbm | mhras-lightgbm | 1 | 1.000 | +0.021 AUROC |",
        "| 50 | 0.200 | the tenth most at risk |",
        "| auroc | 0.81 |",
        "| women | 900 |",
    ):
        assert words in card


@pytest.mark.parametrize(
    ("validation", "words"),
    [({}, "**none of exactly"), ({"run_id": "r", "success": "false"}, "**failed**")],
)
def test_a_card_says_when_the_data_was_not_validated(validation, words):
    card = render_card(make_release(lineage=LINEAGE | {"validation": validation}), FACTS)
    assert words in card


def test_a_card_answers_every_item_or_marks_it_open():
    card = render_card(make_release(), FACTS)
    for item, answer in CHECKLIST:
        assert f"| {item} | {answer} |" in card
    assert any("**open**" in answer for _, answer in CHECKLIST)


def test_a_page_has_tables_and_loads_nothing():
    page = render_page(render_card(make_release(), FACTS))
    loader = Loader()
    loader.feed(page)

    assert loader.loaded == []
    assert "url(" not in page
    assert "@import" not in page
    assert "<title>Model card: mhras-risk</title>" in page
    assert "<td>women</td>" in page


@pytest.mark.parametrize(
    "name", ["<img src=x>", "![x](https://example.org/x.png)", "<script>x()</script>"]
)
def test_a_name_from_the_data_cannot_make_a_page_load_anything(name):
    hostile = replace(FACTS, groups_table=f"| group |\n|---|\n| {name} |\n\n{name}")
    loader = Loader()
    loader.feed(render_page(render_card(make_release(), hostile)))
    assert loader.loaded == []
