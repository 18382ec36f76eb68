"""From an assessment to an answer in the terms of the review queue: pure functions."""

import math
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from feature_repo.consent_terms import DATA_TYPES
from feature_repo.online import OnlineFeatures
from feature_repo.outcomes import ADVERSE_COURSE, HORIZON_DAYS, WORSENING, find_outcome
from mlruns_config.heads import Head
from mlruns_config.manifest import RELEASE_MODEL
from mlruns_config.severity import load_severity_rules
from serving.http.guidance import GUIDANCE, choose_guidance
from serving.scoring.assessment import Assessment, Explanations, RuleFindings
from serving.scoring.crisis import CrisisFinding, SelfHarmSignal
from serving.scoring.doubts import Estimate, Interval, WorseningEstimate
from serving.scoring.estimate import Band, BandEdges
from serving.screening.answers import (
    DOUBT_TEXTS,
    REVIEW_TEXTS,
    IntervalPart,
    MemberPart,
    OutcomePart,
    ReleasePart,
    ReviewReason,
    ReviewReasonPart,
    ScreeningAnswer,
)
from serving.settings import Settings

#: Score of what the crisis rule decides: nothing ranks above it.
CRISIS_SCORE = 100.0
#: Bands whose people wait for a clinician: `high` within a day, `critical` within the hour.
QUEUED_BANDS = (Band.HIGH, Band.CRITICAL)


@dataclass(frozen=True)
class Thresholds:
    """Where bands and reviews begin; without `queues_scores` only a crisis is queued.

    `guidance` is the institution's text for the top band.
    """

    bands: BandEdges
    human_review: float
    queues_scores: bool = True
    guidance: str = GUIDANCE


def read_thresholds(settings: Settings) -> Thresholds:
    bands = BandEdges(
        low=settings.risk_threshold_low,
        moderate=settings.risk_threshold_moderate,
        high=settings.risk_threshold_high,
    )
    return Thresholds(
        bands,
        settings.human_review_threshold,
        settings.enable_human_review_queue,
        choose_guidance(settings),
    )


def compose_answer(
    anonymized_id: str,
    findings: RuleFindings,
    assessment: Assessment | None,
    degraded: list[str],
    thresholds: Thresholds,
) -> ScreeningAnswer:
    """Return the answer; `degraded` names the dependencies that were away."""
    features = assessment.features if assessment and "feature_store" not in degraded else None
    estimate = assessment.estimate if assessment else None
    explained = assessment.explanations if assessment else Explanations()
    score, decided_by = decide_score(findings, estimate, thresholds)
    band = thresholds.bands.find_band(score)
    reasons = list_review_reasons(findings, estimate, band, thresholds)
    return ScreeningAnswer(
        prediction_id=uuid.uuid4(),
        anonymized_id=anonymized_id,
        created_at=datetime.now(UTC),
        summary=summarise(findings, band, estimate),
        risk_score=score,
        risk_band=band,
        decided_by=decided_by,
        rules_version=load_severity_rules().version,
        model_score=estimate.score if estimate else None,
        outcome=assessment.release.manifest.outcome if assessment else ADVERSE_COURSE.key,
        probability=estimate.probability if estimate else None,
        interval=describe_interval(assessment),
        outcomes=describe_outcomes(assessment),
        confidence=estimate.confidence if estimate and features else 0.0,
        reasons=explained.reasons,
        counterfactuals=explained.counterfactuals,
        rule=explained.rule,
        needs_review=bool(reasons),
        review_reasons=reasons,
        crisis_guidance=thresholds.guidance if band is Band.CRITICAL else None,
        missing_data=assessment.missing_data if assessment else list(DATA_TYPES),
        data_as_of=describe_ages(features) if features else {},
        degraded=degraded,
        known_individual=features.is_known if features else None,
        release=describe_release(assessment) if assessment else None,
    )


DecidedBy = Literal["release", "severity_rule", "crisis_rule"]


def decide_score(
    findings: RuleFindings, estimate: Estimate | None, thresholds: Thresholds
) -> tuple[float, DecidedBy]:
    """Return the score and what put it there; rules raise a model's score and never lower it."""
    if findings.crisis.forces_top_band:
        return CRISIS_SCORE, "crisis_rule"
    by_model = estimate.score if estimate else 0.0
    by_rules = max(
        (thresholds.bands.find_least_score(Band(rule.band)) for rule in findings.severity),
        default=0.0,
    )
    if by_rules > by_model or estimate is None:
        return by_rules, "severity_rule"
    return by_model, "release"


def list_review_reasons(
    findings: RuleFindings, estimate: Estimate | None, band: Band, thresholds: Thresholds
) -> list[ReviewReasonPart]:
    """Return every reason why a clinician must see the screening; empty when none holds.

    A rule that rests on a stored questionnaire which a clinician has reviewed since gives none;
    neither does the band that it alone put the person into.
    """
    crisis, queues = findings.crisis, thresholds.queues_scores
    score = estimate.score if estimate else 0.0
    raised_anew = not findings.is_reviewed and band in QUEUED_BANDS
    by_model = thresholds.bands.find_band(score) in QUEUED_BANDS
    checks = {
        ReviewReason.STORED_CRISIS_ITEM: crisis.is_stored and crisis.forces_top_band,
        ReviewReason.CRISIS_ITEM: not crisis.is_stored and crisis.signal is SelfHarmSignal.PRESENT,
        ReviewReason.UNREADABLE_CRISIS_ITEM: not crisis.is_stored
        and crisis.signal is SelfHarmSignal.UNREADABLE,
        ReviewReason.CRISIS_ITEM_UNKNOWN: crisis.signal is SelfHarmSignal.UNKNOWN,
        ReviewReason.HIGH_PRIORITY: queues
        and (raised_anew or by_model)
        and not crisis.forces_top_band,
        ReviewReason.SCORE: queues and estimate is not None and score >= thresholds.human_review,
        ReviewReason.ABSTENTION: queues and is_contested(estimate, thresholds),
        ReviewReason.LIKELY_TO_WORSEN: queues and is_likely_to_worsen(estimate),
        ReviewReason.NO_RELEASE: estimate is None,
    }
    rules = [] if findings.is_reviewed else findings.severity
    doubts = estimate.doubts if estimate is not None and queues else ()
    return [
        *(ReviewReasonPart(code=rule.code, text=rule.text) for rule in rules),
        *(
            ReviewReasonPart(code=code, text=REVIEW_TEXTS[code])
            for code, applies in checks.items()
            if applies
        ),
        *(
            ReviewReasonPart(code=ReviewReason.ABSTENTION, text=DOUBT_TEXTS[doubt])
            for doubt in doubts
        ),
    ]


def is_contested(estimate: Estimate | None, thresholds: Thresholds) -> bool:
    """Return True where the refits do not agree that a person stays out of the queue."""
    if estimate is None:
        return False
    own, refitted = (
        thresholds.bands.find_band(score) in QUEUED_BANDS
        for score in (estimate.score, estimate.contested_score)
    )
    return refitted and not own


def is_likely_to_worsen(estimate: Estimate | None) -> bool:
    return estimate is not None and estimate.worsening is not None and estimate.worsening.is_likely


def wants_review(estimate: Estimate, thresholds: Thresholds) -> bool:
    """Return True if a release's own estimate, rules apart, puts a person into the queue."""
    return (
        estimate.score >= thresholds.human_review
        or bool(estimate.doubts)
        or is_contested(estimate, thresholds)
        or is_likely_to_worsen(estimate)
    )


def summarise(findings: RuleFindings, band: Band, estimate: Estimate | None) -> str:
    """Return one sentence of at most 139 characters in the terms of the review queue."""
    crisis = findings.crisis
    if crisis.forces_top_band:
        return summarise_crisis(crisis)
    named = f"{band.capitalize()} review priority"
    if findings.severity:
        return f"{named}: {shorten(findings.severity[0].text)}"
    if estimate is None:
        return f"{named}: no model was available; rules alone decided."
    bounds = estimate.interval
    interval = f" ({bounds.low:.0%}-{bounds.high:.0%})" if bounds else ""
    chance = f"{estimate.probability:.0%}{interval}"
    return f"{named}: {chance} chance of an adverse course within {HORIZON_DAYS} days."


def summarise_crisis(crisis: CrisisFinding) -> str:
    item = "PHQ-9 item 9 (thoughts of death or self-harm)"
    state = "is above 0" if crisis.signal is SelfHarmSignal.PRESENT else "is unreadable"
    if crisis.is_stored:
        return f"Review now: {item} {state} in a questionnaire of the last 14 days."
    return f"Review now: {item} {state}."


def shorten(text: str, longest: int = 100) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def describe_ages(features: OnlineFeatures) -> dict[str, datetime | None]:
    """Return the moment each group of data stands for: of a questionnaire, its own day.

    Birth year, sex and ethnicity have no moment and are left out.
    """
    ages = {name: at for name, at in features.timestamps.items() if name != "demographics"}
    stored_at = features.values.get("stored_phq9_at", math.nan)
    if "survey_history" in ages and not math.isnan(stored_at):
        ages["survey_history"] = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=stored_at)
    return ages


def describe_interval(assessment: Assessment | None) -> IntervalPart | None:
    if assessment is None:
        return None
    head = assessment.release.manifest.priority
    return make_interval_part(assessment.estimate.interval, head)


def make_interval_part(interval: Interval | None, head: Head) -> IntervalPart | None:
    if interval is None or head.uncertainty is None:
        return None
    return IntervalPart(low=interval.low, high=interval.high, coverage=head.uncertainty.coverage)


def describe_outcomes(assessment: Assessment | None) -> list[OutcomePart]:
    """Return the probability of each outcome with its own words, that of the score first."""
    if assessment is None:
        return []
    estimate, manifest = assessment.estimate, assessment.release.manifest
    first = OutcomePart(
        outcome=manifest.outcome,
        probability=estimate.probability,
        interval=make_interval_part(estimate.interval, manifest.priority),
        text=f"{estimate.probability:.0%} chance of {find_outcome(manifest.outcome).text}",
    )
    if estimate.worsening is None or manifest.worsening is None:
        return [first]
    beside = OutcomePart(
        outcome=estimate.worsening.outcome,
        probability=estimate.worsening.probability,
        interval=make_interval_part(estimate.worsening.interval, manifest.worsening),
        text=describe_worsening(estimate.worsening),
    )
    return [first, beside]


def describe_worsening(worsening: WorseningEstimate) -> str:
    """Return the sentence of the second outcome; for the severely ill, severity is the message."""
    chance = "" if worsening.probability is None else f"{worsening.probability:.0%} chance of "
    if not worsening.is_severe:
        return f"{chance}{WORSENING.text}"
    if worsening.probability is None:
        return "PHQ-9 is severe: severity itself is the message; no further rise is estimated"
    return f"{chance}{WORSENING.text}; PHQ-9 is severe: severity itself is the message"


def describe_release(assessment: Assessment) -> ReleasePart:
    release = assessment.release
    members = [
        MemberPart(
            name=output.name,
            outcome=output.outcome,
            registered_model=release.members[output.name].pin.registered_model,
            version=release.members[output.name].pin.version,
            probability=output.probability,
            weight=output.weight,
        )
        for output in assessment.members
    ]
    return ReleasePart(
        name=RELEASE_MODEL,
        version=release.version,
        feature_service=release.manifest.feature_service,
        simulated_data=release.manifest.is_simulated,
        members=members,
    )
