"""From a assessment to an answer, in the words of a review queue: pure functions."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from feature_repo.consent_terms import DATA_TYPES
from mlruns_config.release import RELEASE_MODEL
from serving.http.guidance import GUIDANCE
from serving.scoring.assessment import Assessment, Explanations
from serving.scoring.crisis import SelfHarmSignal
from serving.scoring.estimate import Band, BandEdges, Estimate
from serving.screening.answers import (
    REVIEW_TEXTS,
    IntervalPart,
    MemberPart,
    ReleasePart,
    ReviewReason,
    ReviewReasonPart,
    ScreeningAnswer,
)
from serving.settings import Settings

#: Score of what the crisis rule decides: nothing ranks above it.
CRISIS_SCORE = 100.0


@dataclass(frozen=True)
class Thresholds:
    """Where bands and reviews begin; without `queues_scores` only a crisis is queued."""

    bands: BandEdges
    human_review: float
    queues_scores: bool = True


def read_thresholds(settings: Settings) -> Thresholds:
    bands = BandEdges(
        low=settings.risk_threshold_low,
        moderate=settings.risk_threshold_moderate,
        high=settings.risk_threshold_high,
    )
    return Thresholds(bands, settings.human_review_threshold, settings.enable_human_review_queue)


def compose_answer(
    anonymized_id: str,
    signal: SelfHarmSignal,
    assessment: Assessment | None,
    degraded: list[str],
    thresholds: Thresholds,
) -> ScreeningAnswer:
    """Return the answer; `degraded` names the dependencies that were away."""
    features = assessment.features if assessment and "feature_store" not in degraded else None
    found = assessment.estimate if assessment else None
    explained = assessment.explanations if assessment else Explanations()
    crisis = signal.forces_top_band
    score = CRISIS_SCORE if crisis or found is None else found.score
    band = Band.CRITICAL if crisis else thresholds.bands.find_band(score)
    reasons = list_review_reasons(signal, found, thresholds)
    return ScreeningAnswer(
        prediction_id=uuid.uuid4(),
        anonymized_id=anonymized_id,
        created_at=datetime.now(UTC),
        summary=summarise(signal, band, found),
        risk_score=score,
        risk_band=band,
        decided_by="crisis_rule" if crisis else "release",
        model_score=found.score if found else None,
        probability=found.probability if found else None,
        interval=describe_interval(assessment),
        confidence=found.confidence if found else 0.0,
        reasons=explained.reasons,
        counterfactuals=explained.counterfactuals,
        rule=explained.rule,
        needs_review=bool(reasons),
        review_reasons=[ReviewReasonPart(code=code, text=REVIEW_TEXTS[code]) for code in reasons],
        crisis_guidance=GUIDANCE if crisis or band is Band.CRITICAL else None,
        missing_data=assessment.missing_data if assessment else list(DATA_TYPES),
        data_as_of=features.timestamps if features else {},
        degraded=degraded,
        known_individual=features.is_known if features else None,
        release=describe_release(assessment) if assessment else None,
    )


def list_review_reasons(
    signal: SelfHarmSignal, found: Estimate | None, thresholds: Thresholds
) -> list[ReviewReason]:
    """Return every reason why a person must look; empty when none does."""
    queues = thresholds.queues_scores
    reaches = found is not None and found.score >= thresholds.human_review
    checks = {
        ReviewReason.CRISIS_ITEM: signal is SelfHarmSignal.PRESENT,
        ReviewReason.UNREADABLE_CRISIS_ITEM: signal is SelfHarmSignal.UNREADABLE,
        ReviewReason.CRISIS_ITEM_UNKNOWN: signal is SelfHarmSignal.UNKNOWN,
        ReviewReason.SCORE: queues and reaches,
        ReviewReason.ABSTENTION: queues and found is not None and found.abstains,
        ReviewReason.NO_RELEASE: found is None,
    }
    return [reason for reason, applies in checks.items() if applies]


def summarise(signal: SelfHarmSignal, band: Band, found: Estimate | None) -> str:
    """Return one sentence of at most 139 characters, in the words of a review queue."""
    if signal is SelfHarmSignal.PRESENT:
        return "Review now: PHQ-9 item 9 (thoughts of death or self-harm) is above 0."
    if found is None or signal is SelfHarmSignal.UNREADABLE:
        return "Review now: PHQ-9 item 9 (thoughts of death or self-harm) is unreadable."
    chance = f"{found.probability:.0%} ({found.interval.low:.0%}-{found.interval.high:.0%})"
    return f"{band.capitalize()} review priority: {chance} chance of worsening within 90 days."


def describe_interval(assessment: Assessment | None) -> IntervalPart | None:
    if assessment is None:
        return None
    interval = assessment.estimate.interval
    coverage = assessment.release.manifest.conformal.coverage
    return IntervalPart(low=interval.low, high=interval.high, coverage=coverage)


def describe_release(assessment: Assessment) -> ReleasePart:
    release = assessment.release
    members = [
        MemberPart(
            name=output.name,
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
        members=members,
    )
