"""The model card of a release: what it is for, made of, good at, and not.

After Mitchell et al. 2019, with the items of TRIPOD+AI (Collins et al. 2024) and PROBAST
(Wolff et al. 2019) that a reader asks first, answered or marked open.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markdown_it import MarkdownIt

from mlruns_config.release import RELEASE_MODEL, ReleaseManifest

TEMPLATE = Path(__file__).with_name("model_card.md.j2")

CHECKLIST = (
    ("Source of data (TRIPOD 5)", "see Data; every table by version and digest"),
    ("Participants: eligibility and consent (TRIPOD 6)", "consent in force for training"),
    (
        "Outcome and how it is determined (TRIPOD 8)",
        "see What it is for; derived, not adjudicated, unless outcomes were delivered",
    ),
    (
        "Predictors and when they are known (TRIPOD 9)",
        "only what was known at the index date; asserted by a test",
    ),
    ("Sample size (TRIPOD 10)", "see Data; no formal calculation: **open**"),
    ("Missing data (TRIPOD 11)", "not imputed for trees; median and flag for the regression"),
    (
        "Model building and internal validation (TRIPOD 12)",
        "out-of-fold by individual; held out by individual and time",
    ),
    ("Fairness (TRIPOD 14)", "see For whom"),
    ("Full model available (TRIPOD 22)", "registered as ONNX and JSON, hashes in the manifest"),
    ("External validation (TRIPOD 16)", "**open**: none"),
    ("Clinical utility in use (TRIPOD 26)", "**open**: decision curve only, no prospective study"),
    ("PROBAST 1 participants", "low concern for simulated data; to be judged per site: **open**"),
    ("PROBAST 2 predictors", "low: known before the outcome, same definition for all"),
    ("PROBAST 3 outcome", "unclear: self-report is part of predictors and of the outcome"),
    (
        "PROBAST 4 analysis",
        "low: calibration, intervals by individual, no selection on the held-out rows",
    ),
)

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.6 system-ui, sans-serif; max-width: 58rem; margin: 2rem auto; color: #222; }}
table {{ border-collapse: collapse; }}
th, td {{ border-bottom: 1px solid #ddd; padding: .25rem .6rem; text-align: left; }}
</style>
{body}
</html>
"""


class UnknownFact(StrictUndefined):
    """An unknown fact is named even where `str.format` would complain of its type."""

    def __format__(self, specification: str) -> str:
        return str(self)


@dataclass(frozen=True)
class CardFacts:
    """What a card tells besides the manifest; tables are Markdown."""

    metrics: Mapping[str, float]
    metrics_table: str
    groups_table: str
    #: Member -> its gain in words.
    decisions: Mapping[str, str]
    period: tuple[date, date]
    horizon_days: int


def render_card(manifest: ReleaseManifest, facts: CardFacts, version: int | None = None) -> str:
    """Return the card as Markdown.

    An unknown fact is an error (jinja2.UndefinedError that names it), not a blank.
    """
    environment = Environment(undefined=UnknownFact, autoescape=False)
    template = environment.from_string(TEMPLATE.read_text())
    return template.render(
        model=RELEASE_MODEL,
        version=version,
        manifest=manifest,
        lineage=manifest.lineage,
        checklist=CHECKLIST,
        probability_at=_list_edges(manifest),
        **_to_fields(facts),
    )


def render_page(card: str) -> str:
    """Return a card as a page (HTML) that loads nothing from anywhere."""
    # Names of groups come from data: neither their HTML nor their images are taken over.
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    body = markdown.render(card)
    title = escape(card.splitlines()[0].lstrip("# "))
    return PAGE.format(title=title, body=body)


def _list_edges(manifest: ReleaseManifest) -> dict[str, float]:
    pairs = zip(manifest.score_map.scores, manifest.score_map.probabilities, strict=True)
    return {f"{score:g}": probability for score, probability in pairs}


def _to_fields(facts: CardFacts) -> dict[str, Any]:
    return {name: getattr(facts, name) for name in facts.__dataclass_fields__}
