"""TRIPOD+AI and PROBAST+AI, answered from what a training measured.

After Collins et al. 2024 (doi 10.1136/bmj-2023-078378) and Moons et al. 2025 (doi
10.1136/bmj-2024-082505). Nothing is answered that the run does not show: such an item is open, and
an assessment of PROBAST is computed from its signalling facts, each of which is named.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mlruns_config.manifest import ReleaseManifest

OPEN = "**open**"
#: Outcomes that a validation needs at least (Collins 2016), and per candidate column of the
#: baseline that a development does (Riley 2020 asks for more where the signal is weak).
EVENTS_TO_EVALUATE, EVENTS_PER_COLUMN = 100, 10
#: Share of index dates without follow-up from which on the followed may be others.
UNFOLLOWED_SHARE = 0.2

SLOPE, RATIO = "calibration_slope", "observed_over_expected"

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class RunFacts:
    """What the checklists read of a run; `parts` counts (index dates, outcomes) by part."""

    manifest: ReleaseManifest
    metrics: Metrics
    parts: Mapping[str, tuple[int, int]]
    excluded: Mapping[str, int]
    split_in_time: bool
    groups_assessed: int
    groups_not_assessed: int

    @property
    def held_out(self) -> tuple[int, int]:
        return self.parts.get("held out", (0, 0))

    @property
    def learnt(self) -> tuple[int, int]:
        used = [counts for name, counts in self.parts.items() if name in LEARNT]
        return sum(rows for rows, _ in used), sum(events for _, events in used)

    def holds(self, name: str, value: float) -> bool | None:
        """Return True if the interval of a metric holds a value; None where it is not known."""
        low, high = self.metrics.get(f"{name}_low"), self.metrics.get(f"{name}_high")
        return None if low is None or high is None else low <= value <= high


LEARNT = ("fitting", "stopping", "calibration")


def list_answers(facts: RunFacts) -> list[tuple[str, str]]:
    """Return every item with its answer, in order."""
    return [
        *_answer_tripod_on_data(facts),
        *_answer_tripod_on_methods(facts),
        *_answer_tripod_on_results(facts),
        *_answer_probast(facts),
    ]


def _name_split(facts: RunFacts) -> str:
    return "individuals and later months" if facts.split_in_time else "individuals alone"


def _answer_tripod_on_data(facts: RunFacts) -> Iterator[tuple[str, str]]:
    """Yield title, introduction, and what is learnt from."""
    tables = [
        name for name, landed in facts.manifest.lineage.get("tables", {}).items() if landed["rows"]
    ]
    yield "TRIPOD+AI 1-2 title, abstract", f"this card; no article: {OPEN}"
    yield "TRIPOD+AI 3 background, and who is served worse today", f"{OPEN} per site"
    yield "TRIPOD+AI 4 objectives", "development with internal validation; see What it is for"
    yield (
        "TRIPOD+AI 5 source of data, dates",
        f"{', '.join(tables)} by version and digest; see Data",
    )
    yield "TRIPOD+AI 6 participants and eligibility", f"consent to training; setting: {OPEN}"
    yield "TRIPOD+AI 7 preparation of data", describe_counts(facts.excluded)
    yield (
        "TRIPOD+AI 8 outcome and how it is determined",
        f"`{facts.manifest.outcome}`, see Data for what it is made of; the noise floor is "
        f"{_show(facts.metrics, 'noise_floor_adverse_course', '.1%')} of index dates",
    )
    yield (
        "TRIPOD+AI 9 predictors",
        f"{len(facts.manifest.features)} columns, known at the index date",
    )


def _answer_tripod_on_methods(facts: RunFacts) -> Iterator[tuple[str, str]]:
    """Yield sample size, analysis, and what is open about the study."""
    (rows, events), (learnt_rows, learnt_events) = facts.held_out, facts.learnt
    yield (
        "TRIPOD+AI 10 sample size",
        f"{learnt_rows:,} index dates with {learnt_events:,} outcomes learnt from, {rows:,} with "
        f"{events:,} held out; no calculation beforehand: {OPEN}",
    )
    yield (
        "TRIPOD+AI 11 missing data",
        "left missing for trees; median and flag for regression",
    )
    yield (
        "TRIPOD+AI 12 analytical methods",
        f"out-of-fold stacking by individual, {facts.manifest.calibration.kind} calibration, held "
        f"out by {_name_split(facts)}",
    )
    yield (
        "TRIPOD+AI 13 class imbalance",
        f"nothing resampled; prevalence {facts.metrics['prevalence']:.1%}",
    )
    yield (
        "TRIPOD+AI 14 fairness",
        f"{facts.groups_assessed} groups assessed, {facts.groups_not_assessed} too small; see For "
        "whom",
    )
    yield "TRIPOD+AI 15 output", "a probability, and a score from it; see Operating points"
    design = _name_split(facts)
    yield "TRIPOD+AI 16 training against evaluation data", f"same source, other {design}"
    for item in ("17 ethical approval", "18 funding, protocol, registration, data"):
        yield f"TRIPOD+AI {item}", OPEN
    yield "TRIPOD+AI 18f code", f"commit `{facts.manifest.lineage.get('git_commit', 'unknown')}`"
    yield "TRIPOD+AI 19 patient and public involvement", OPEN


def _answer_tripod_on_results(facts: RunFacts) -> Iterator[tuple[str, str]]:
    """Yield numbers, model and performance, and how they are read."""
    metrics, (learnt_rows, learnt_events) = facts.metrics, facts.learnt
    yield "TRIPOD+AI 20 participants in numbers", "see Data"
    yield "TRIPOD+AI 21 model development in numbers", f"{learnt_rows:,} and {learnt_events:,}"
    yield "TRIPOD+AI 22 model specification", "registered as ONNX and JSON, hashes in the manifest"
    yield (
        "TRIPOD+AI 23 performance",
        f"AUROC {_show(metrics, 'auroc', '.3f')}, slope {_show(metrics, SLOPE, '.2f')}, "
        f"observed/expected {_show(metrics, RATIO, '.2f')}, with intervals by individual",
    )
    yield (
        "TRIPOD+AI 24 model updating",
        "each retraining is a version of its own, in the ledger",
    )
    yield "TRIPOD+AI 25 interpretation", f"against PHQ-9 alone and a regression; others: {OPEN}"
    yield "TRIPOD+AI 26 limitations", "see Known failure modes"
    yield "TRIPOD+AI 27 usability in care", f"decision curve; prospective study: {OPEN}"


def _show(metrics: Metrics, name: str, form: str) -> str:
    return format(metrics[name], form) if name in metrics else "not measured"


def describe_counts(counts: Mapping[str, int]) -> str:
    """Return counts by reason as one line."""
    return "; ".join(f"{number:,} {name}" for name, number in counts.items()) or "nothing left out"


def _answer_probast(facts: RunFacts) -> Iterator[tuple[str, str]]:
    for domain, concerns, unknown in (
        ("participants and data sources", _doubt_participants(facts), ["setting and sampling"]),
        ("predictors", _doubt_predictors(facts), []),
        ("outcome", _doubt_outcome(facts), []),
        ("analysis", _doubt_analysis(facts), _list_unknown(facts)),
    ):
        yield f"PROBAST+AI {domain}", describe_bias(list(concerns), unknown)


def describe_bias(concerns: list[str], unknown: list[str]) -> str:
    """Return the risk of bias: high with a concern, unclear with something unknown, else low."""
    if concerns:
        return f"high: {'; '.join(concerns)}"
    if unknown:
        return f"unclear: {', '.join(unknown)} not known from the run"
    return "low: no concern among those the run can show"


def _doubt_participants(facts: RunFacts) -> Iterator[str]:
    if facts.manifest.is_simulated:
        yield "the people are simulated"
    unfollowed = sum(n for why, n in facts.excluded.items() if "without another" in why)
    share = unfollowed / max(unfollowed + int(facts.metrics["rows"]), 1)
    if share > UNFOLLOWED_SHARE:
        yield f"{share:.0%} of index dates have no follow-up, and who has one may differ"


def _doubt_predictors(facts: RunFacts) -> Iterator[str]:
    if not facts.manifest.lineage.get("feature_service_hash"):
        yield "the definition of the features is not recorded"
    if not facts.manifest.lineage.get("validation"):
        yield "these versions of the data were not validated"


def _doubt_outcome(facts: RunFacts) -> Iterator[str]:
    if facts.metrics.get("adjudicated_share", 0.0) < 1:
        yield "derived from PHQ-9, which is among the predictors, unless adjudicated"


def _doubt_analysis(facts: RunFacts) -> Iterator[str]:
    _, events = facts.held_out
    if events < EVENTS_TO_EVALUATE:
        yield f"{events} held-out outcomes, fewer than {EVENTS_TO_EVALUATE}"
    _, learnt = facts.learnt
    if learnt < EVENTS_PER_COLUMN * len(facts.manifest.features):
        yield (
            f"{learnt / len(facts.manifest.features):.1f} outcomes for each of "
            f"{len(facts.manifest.features)} columns, fewer than {EVENTS_PER_COLUMN}; the members "
            "are penalised"
        )
    if not facts.split_in_time:
        yield "no later months were held out"
    for name, words in (
        ("calibration_slope", "the calibration slope"),
        (RATIO, "observed/expected"),
    ):
        if facts.holds(name, 1.0) is False:
            yield f"the interval of {words} does not hold 1"


def _list_unknown(facts: RunFacts) -> list[str]:
    return [name for name in (SLOPE, RATIO) if facts.holds(name, 1.0) is None]
