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

from mlruns_config.manifest import RELEASE_MODEL, ReleaseManifest

TEMPLATE = Path(__file__).with_name("model_card.md.j2")
#: Artifacts of a training run.
CARD_FILE, CARD_PAGE = "model_card.md", "model_card.html"

CHECKLIST = (
    ("TRIPOD+AI 1-2 title, abstract", "this card; no article: **open**"),
    (
        "TRIPOD+AI 3 background, and who is served worse today",
        "see What it is for; **open** per site",
    ),
    ("TRIPOD+AI 4 objectives", "see What it is for; development and internal validation"),
    ("TRIPOD+AI 5 source of data, dates", "see Data; every table by version and digest"),
    (
        "TRIPOD+AI 6 participants and eligibility",
        "consent for training; setting: **open**",
    ),
    ("TRIPOD+AI 7 preparation of data", "contract and suites; bad rows in quarantine, counted"),
    (
        "TRIPOD+AI 8 outcome and how it is determined",
        "see What it is for; derived, not adjudicated, unless outcomes were delivered",
    ),
    (
        "TRIPOD+AI 9 predictors and when they are known",
        "only what was known at the index date; asserted by a test",
    ),
    ("TRIPOD+AI 10 sample size", "see Data; no formal calculation: **open**"),
    ("TRIPOD+AI 11 missing data", "not imputed for trees; median and flag for the regression"),
    (
        "TRIPOD+AI 12 analytical methods",
        "out-of-fold stacking by individual; calibration on later months; see Members",
    ),
    ("TRIPOD+AI 13 class imbalance", "nothing resampled: probabilities keep their meaning"),
    ("TRIPOD+AI 14 fairness", "see For whom; by group, pair of groups and missing data"),
    ("TRIPOD+AI 15 output of the model", "see Operating points; the probability beside the score"),
    (
        "TRIPOD+AI 16 training against evaluation data",
        "held out by individual and time; external data: **open**, none",
    ),
    ("TRIPOD+AI 17 ethical approval", "**open**: to be had by whoever trains on real people"),
    ("TRIPOD+AI 18 funding, protocol, registration, data, code", "code by commit; others **open**"),
    ("TRIPOD+AI 19 involvement of patients and the public", "**open**: none"),
    ("TRIPOD+AI 20 participants in numbers", "see Data and For whom"),
    ("TRIPOD+AI 21 development in numbers", "see Members and How good it is"),
    ("TRIPOD+AI 22 the whole model", "registered as ONNX and JSON, hashes in the manifest"),
    ("TRIPOD+AI 23 performance with intervals", "see How good it is; by individual, bootstrapped"),
    ("TRIPOD+AI 24 updating", "retrained as a new version; every promotion in the ledger"),
    ("TRIPOD+AI 25 interpretation", "**open**: no comparison with other models on these data"),
    ("TRIPOD+AI 26 limitations", "see Known failure modes"),
    ("TRIPOD+AI 27 usability and utility in care", "decision curve; prospective study: **open**"),
    ("PROBAST 1 participants", "to be judged per site: **open**"),
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
    coverage_table: str
    not_judged_table: str
    calibration_table: str
    #: Member -> its gain in words.
    decisions: Mapping[str, str]
    period: tuple[date, date]
    #: Whether the held-out index dates are later than all that was learnt from.
    split_in_time: bool
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


def add_notice(card: str, notice: str) -> str:
    """Return a card (Markdown) with a notice in bold below its title."""
    title, _, rest = card.partition("\n")
    return f"{title}\n\n**{notice}**\n{rest}"


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
