"""What a release's card and version hold of its external validations.

The card has one section for all of them, newest last. An entry is found by its MLflow run, so a
repeated write replaces it instead of doubling it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from mlruns_config.description import DESCRIPTION_LIMIT
from mlruns_config.pages import locate_run

HEADING = "## External validation"
NONE_YET = "None has been made."
#: Tags of a release version: one for each validation, by its run.
TAG = "external_validation."

Interval = tuple[float, float]


@dataclass(frozen=True)
class ExternalFacts:
    """One validation: what the data were, and what the release came to on them.

    `source` is the site's own words on the data. `few` says why the numbers are imprecise, empty
    where they are not. `recalibration` is one sentence. Tables are Markdown.
    """

    run_id: str
    experiment_id: str
    made_at: datetime
    source: str
    simulated: bool
    trained_on_simulated: bool
    period: tuple[date, date]
    known: int
    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval]
    groups_table: str
    not_judged_table: str
    calibration_table: str
    few: str
    recalibration: str

    def summarise(self) -> str:
        """Return one line: discrimination, calibration and size."""
        metrics, (low, high) = self.metrics, self.intervals["auroc"]
        return (
            f"{self.source}: AUROC {metrics['auroc']:.3f} ({low:.3f} to {high:.3f}), "
            f"observed/expected {metrics['observed_over_expected']:.2f}, "
            f"{metrics['rows']:,.0f} index dates, {metrics['outcomes']:,.0f} with the outcome"
        )


def write_section(facts: ExternalFacts) -> str:
    """Return one validation as a part of the card's section (Markdown)."""
    metrics = facts.metrics
    page = locate_run(facts.experiment_id, facts.run_id)
    lines = [
        f"### {facts.source}",
        "",
        _describe_data(facts),
        "",
        "| metric | value | 95 % interval |",
        "|---|---:|---|",
        *(_write_row(name, metrics, facts.intervals) for name in SHOWN if name in metrics),
        "",
        facts.calibration_table,
        "",
        facts.groups_table,
        "",
        f"Groups too small to be assessed:\n\n{facts.not_judged_table}",
        "",
        f"Recalibration: {facts.recalibration}",
        "",
        f"[Run {facts.run_id}]({page}) has every metric, table and plot.",
    ]
    return "\n".join(lines)


#: Metrics of the table, in this order.
SHOWN = (
    "auroc",
    "auprc",
    "auroc_phq9_alone",
    "auroc_gain_over_phq9",
    "auroc_gain",
    "observed_over_expected",
    "calibration_slope",
    "ece",
    "calibration_ici",
    "brier",
    "net_benefit_gain",
    "worsening_auroc",
    "worsening_observed_over_expected",
)


def _describe_data(facts: ExternalFacts) -> str:
    metrics, (first, last) = facts.metrics, facts.period
    kinds = {True: "simulated people", False: "people"}
    text = (
        f"On {facts.made_at:%Y-%m-%d}, of {kinds[facts.simulated]}; the release was trained on "
        f"{kinds[facts.trained_on_simulated]}. {metrics['rows']:,.0f} labelled index dates of "
        f"{metrics['individuals']:,.0f} individuals from {first} to {last}, "
        f"{metrics['outcomes']:,.0f} with the outcome. Nothing of these data was kept or learnt "
        "from."
    )
    if facts.known:
        text += f" {facts.known} individuals were left out: this state holds data of them."
    return f"{text} {facts.few}".strip()


def _write_row(name: str, metrics: Mapping[str, float], intervals: Mapping[str, Interval]) -> str:
    bounds = intervals.get(name)
    interval = f"{bounds[0]:.3f} to {bounds[1]:.3f}" if bounds else ""
    return f"| {name} | {metrics[name]:.3f} | {interval} |"


def add_to_card(card: str, facts: ExternalFacts) -> str:
    """Return the card (Markdown) with one validation added, or written anew."""
    before, separator, rest = card.partition(f"\n{HEADING}\n")
    section, heading, after = rest.partition("\n## ") if separator else ("", "", "")
    entries = [entry for entry in _split_entries(section) if facts.run_id not in entry]
    body = "\n\n".join([*entries, write_section(facts)])
    return f"{before.rstrip()}\n\n{HEADING}\n\n{body}\n{heading}{after}"


def _split_entries(section: str) -> list[str]:
    return [
        entry.strip() for entry in re.split(r"(?m)^(?=### )", section) if entry.startswith("### ")
    ]


def add_to_description(description: str, facts: ExternalFacts) -> str:
    """Return a version's description with a line on the validation, as far as there is room."""
    page = locate_run(facts.experiment_id, facts.run_id)
    kept = [line for line in description.splitlines() if facts.run_id not in line]
    line = f"- [External validation]({page}): {facts.summarise()}"
    longer = "\n".join([*kept, line])
    return longer if len(longer) <= DESCRIPTION_LIMIT else description
