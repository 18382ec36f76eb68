"""The model card of a release: what it is for, made of, good at, and not.

After Mitchell et al. 2019, with TRIPOD+AI, PROBAST+AI and the source attributes of ONC HTI-1
answered from the run, or marked open.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markdown_it import MarkdownIt

from mlruns_config.checklists import RunFacts, list_answers
from mlruns_config.manifest import RELEASE_MODEL, ReleaseManifest
from mlruns_config.source_attributes import Attribute, write_attributes

TEMPLATE = Path(__file__).with_name("model_card.md.j2")
#: Artifacts of a training run.
CARD_FILE, CARD_PAGE = "model_card.md", "model_card.html"

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

    run: RunFacts
    attributes: list[Attribute]
    metrics: Mapping[str, float]
    metrics_table: str
    parts_table: str
    baseline_table: str
    outcome_table: str
    excluded_table: str
    learning_table: str
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
    #: Why the release was made; empty where the run states none.
    reason: str = ""


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
        checklist=list_answers(facts.run),
        source_attributes=write_attributes(facts.attributes),
        open_attributes=sum(attribute.is_open for attribute in facts.attributes),
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
