"""The model card: every fact or an error, and a page that loads nothing."""

import re
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser

import pytest
from jinja2 import UndefinedError

from mlruns_config.checklists import list_answers
from mlruns_config.heads import ScoreMap
from mlruns_config.manifest import ReleaseManifest
from mlruns_config.model_card import CardFacts, render_card, render_page
from mlruns_config.source_attributes import list_attributes
from tests.fixtures.card_facts import make_attribute_facts, make_run_facts
from tests.fixtures.manifests import PIN, make_manifest, make_refit_interval

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
    run=make_run_facts(make_manifest(lineage=LINEAGE)),
    attributes=list_attributes(make_attribute_facts(make_manifest(lineage=LINEAGE))),
    parts_table="| part | rows |\n|---|---|\n| held out | 1700 |",
    baseline_table="| characteristic | held out |\n|---|---|\n| age, mean (sd) | 41.0 (12.0) |",
    outcome_table="| index dates | number |\n|---|---|\n| with the outcome | 615 |",
    excluded_table="| left out | number |\n|---|---|\n| PHQ-9 without another | 44 |",
    learning_table="| share | AUROC lightgbm |\n|---|---|\n| 0.5 | 0.78 |",
    metrics={
        "rows": 5000.0,
        "held_out_rows": 1700.0,
        "prevalence": 0.123,
        "calibration_slope": 1.02,
        "calibration_intercept": -0.04,
        "ece": 0.017,
        "auroc_phq9_alone": 0.74,
        "auroc_gain_over_phq9": 0.07,
        "abstained_share": 0.03,
    },
    metrics_table="| metric | value | interval |\n|---|---|---|\n| auroc | 0.81 | 0.79 to 0.83 |",
    calibration_table="| by | group |\n|---|---|\n| severity | 20-27 |",
    not_judged_table="| attribute | group |\n|---|---|\n| sex | other |",
    coverage_table="| severity | rows |\n|---|---|\n| 20-27 | 90 |",
    groups_table="| group | rows |\n|---|---|\n| women | 900 |",
    decisions={"lightgbm": "+0.021 AUROC"},
    split_in_time=True,
    period=(date(2023, 1, 1), date(2025, 6, 30)),
    horizon_days=90,
)


def make_release(**changes) -> ReleaseManifest:
    score_map = ScoreMap(
        probabilities=[0, 0.2, 1],
        scores=[0, 50, 100],
        operating_points={"50": "the tenth most at risk"},
    )
    sure = {
        "members": [PIN.model_copy(update={"artifacts": {"refits.onnx": "0" * 64}})],
        "uncertainty": make_refit_interval(),
    }
    return make_manifest(**({"lineage": LINEAGE, "score_map": score_map} | sure | changes))


class Loader(HTMLParser):
    """Collects what a browser would load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("img", "script", "link", "iframe", "object", "embed") or "src" in dict(attrs):
            self.loaded.append(tag)


@pytest.mark.parametrize("fact", sorted(FACTS.metrics))
def test_an_unknown_metric_is_an_error_that_names_it(fact):
    metrics = {name: value for name, value in FACTS.metrics.items() if name != fact}
    with pytest.raises(UndefinedError, match=f"'{fact}'"):
        render_card(make_release(), replace(FACTS, metrics=metrics))


@pytest.mark.parametrize("fact", sorted(LINEAGE))
def test_unknown_lineage_is_an_error_that_names_it(fact):
    lineage = {name: value for name, value in LINEAGE.items() if name != fact}
    with pytest.raises(UndefinedError, match=fact):
        render_card(make_release(lineage=lineage), FACTS)


REQUIRED = {
    "intended use": "It ranks individuals for **review by a clinician**.",
    "limits of use": "It is never a ground to deny, delay or end care.",
    "Delta version, count and digest": "| survey | 3 | 12,345 | `dddddddddddddddd` |",
    "a table that is not there": "| outcomes | none | 0 | `-` |",
    "period": "5,000 labelled index dates\nfrom 2023-01-01 to 2025-06-30",
    "prevalence": "outcome in 12.3%",
    "purpose of consent": "Purpose of consent: training.",
    "validation": "run `run-7`, passed",
    "environment": "Environment: Python 3.11.7, packages `eeeeeeeeeeeeeeee`",
    "members": "| lightgbm | mhras-lightgbm | 1 | 1.000 | +0.021 AUROC |",
    "metrics with intervals": "| auroc | 0.81 | 0.79 to 0.83 |",
    "fairness": "## For whom\n\n| group | rows |\n|---|---|\n| women | 900 |",
    "calibration": "1.020 (1 is ideal), intercept -0.040 (0), expected calibration error 0.017",
    "interval": "90% of people a release trained on other people of the same population",
    "coverage by severity": "| severity | rows |\n|---|---|\n| 20-27 | 90 |",
    "operating points": "| 50 | 0.200 | the tenth most at risk |",
    "known failure modes": "## Known failure modes\n\n- ",
    "parts of the split": "| held out | 1700 |",
    "baseline": "| age, mean (sd) | 41.0 (12.0) |",
    "what the outcome is made of": "| with the outcome | 615 |",
    "exclusions": "| PHQ-9 without another | 44 |",
    "learning curve": "| 0.5 | 0.78 |",
    "TRIPOD+AI": "| TRIPOD+AI 27 usability in care | ",
    "PROBAST": "| PROBAST+AI analysis | ",
    "source attributes": "**9.ii Correction of performance when risks are found**: ",
}


def test_a_card_of_simulated_data_has_it_in_title_and_first_line():
    simulated = render_card(make_release(lineage=LINEAGE | {"simulated": True}), FACTS)
    title, _, first = simulated.splitlines()[:3]

    assert title == "# Model card (simulated data): mhras-risk"
    assert first.startswith("**Trained and evaluated on simulated people.")
    assert "imulated" not in render_card(make_release(), FACTS).split("## TRIPOD")[0]


@pytest.mark.parametrize("item", REQUIRED)
def test_a_card_has_every_item_it_must_have(item):
    assert REQUIRED[item] in render_card(make_release(), FACTS, version=4)


def test_a_card_begins_with_model_and_version():
    card = render_card(make_release(), FACTS, version=4)
    assert card.startswith("# Model card: mhras-risk version 4\n")


@pytest.mark.parametrize(
    ("validation", "words"),
    [({}, "**none of exactly"), ({"run_id": "r", "success": "false"}, "**failed**")],
)
def test_a_card_says_when_the_data_was_not_validated(validation, words):
    card = render_card(make_release(lineage=LINEAGE | {"validation": validation}), FACTS)
    assert words in card


def test_every_item_of_tripod_and_probast_is_answered_or_marked_open():
    card, answers = render_card(make_release(), FACTS), list_answers(FACTS.run)
    numbers = [re.match(r"TRIPOD\+AI (\d+)(?:-(\d+))?", item) for item, _ in answers]
    covered = {n for one in numbers if one for n in range(int(one[1]), int(one[2] or one[1]) + 1)}
    assert covered == set(range(1, 28))
    assert len([item for item, _ in answers if item.startswith("PROBAST+AI ")]) == 4
    for item, answer in answers:
        assert f"| {item} | {answer} |" in card
    assert any("**open**" in answer for _, answer in answers)


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
