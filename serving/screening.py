"""One screening: consent, features, scores, crisis rule, answer, record.

Everything it writes is in the caller's transaction: prediction, review item and audit row
are committed together, before the answer is sent, or none of them is.
"""

import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from feature_repo.consent_terms import DATA_TYPES
from mlruns_config.release import RELEASE_MODEL
from monitoring.metrics import CONSENT_FAILURES, CONSENT_VERIFICATIONS
from serving import audit
from serving.answers import (
    REVIEW_TEXTS,
    IntervalPart,
    MemberPart,
    ReasonPart,
    ReleasePart,
    ReviewReason,
    ReviewReasonPart,
    ScreeningAnswer,
)
from serving.consent import SCREENING, get_consented_data_types
from serving.crisis import GUIDANCE, SelfHarmSignal, read_signal
from serving.errors import (
    ConsentMissingError,
    DeadlineExceededError,
    Principal,
    ReleaseUnavailableError,
)
from serving.features import FeatureGateway, Features, Query
from serving.judgement import Judgement, judge
from serving.records import Caller, record
from serving.release import Release
from serving.requests import ScreeningRequest, SurveyData
from serving.scoring import (
    Band,
    BandEdges,
    Estimate,
)

#: Score of what the crisis rule decides: nothing ranks above it.
CRISIS_SCORE = 100.0


@dataclass(frozen=True)
class Thresholds:
    bands: BandEdges
    human_review: float


def screen(
    session: Session,
    request: ScreeningRequest,
    anonymized_id: str,
    caller: Caller,
    release: Release | None,
    features: FeatureGateway,
    thresholds: Thresholds,
) -> ScreeningAnswer:
    """Answer one screening and add its records to the session.

    Raises ConsentMissingError, ReleaseUnavailableError (unless the crisis rule decides
    without a release) and DeadlineExceededError; nothing is recorded then.
    """
    at = request.index_time or datetime.now(UTC)
    consented = require_consent(session, request, anonymized_id, caller.principal)
    answers = request.answers
    signal = read_signal(answers.phq9, answers.phq9_score)
    if release is None and not signal.forces_top_band:
        raise ReleaseUnavailableError(
            "the registry's Production release could not be loaded yet; try again shortly"
        )
    found = features.read(anonymized_id, make_query(answers, at, consented))
    judgement = judge(release, found, consented) if release else None
    answer = compose_answer(anonymized_id, signal, judgement, found, thresholds)
    if time.monotonic() > caller.deadline:
        raise DeadlineExceededError("the screening timed out; send it again")
    record(session, answer, caller, consented, judgement)
    return answer


def require_consent(
    session: Session, request: ScreeningRequest, anonymized_id: str, principal: Principal
) -> frozenset[str]:
    """Return the data types that may be used, or raise ConsentMissingError.

    Consent is judged now, not at the index time: a withdrawal binds for what was answered before.
    """
    CONSENT_VERIFICATIONS.inc()
    consented = get_consented_data_types(session, anonymized_id, SCREENING, datetime.now(UTC))
    lacks_survey = request.answers.has_answers and "survey" not in consented
    if consented and not lacks_survey:
        return consented
    CONSENT_FAILURES.inc()
    what = "survey answers" if consented else "any data type"
    raise ConsentMissingError(
        f"no consent in force covers {what} for the purpose {SCREENING}",
        principal,
        audit.GENERATE_RISK_SCORE,
        anonymized_id,
    )


def make_query(answers: SurveyData, at: datetime, consented: frozenset[str]) -> Query:
    return Query(
        index_time=at,
        phq9=answers.phq9,
        gad7=answers.gad7,
        phq9_total=answers.phq9_score,
        data_types=consented,
    )


def compose_answer(
    anonymized_id: str,
    signal: SelfHarmSignal,
    judgement: Judgement | None,
    features: Features,
    thresholds: Thresholds,
) -> ScreeningAnswer:
    found = judgement.estimate if judgement else None
    crisis = signal.forces_top_band
    score = CRISIS_SCORE if crisis or found is None else found.score
    band = Band.CRITICAL if crisis else thresholds.bands.find_band(score)
    reasons = list_review_reasons(signal, found, thresholds.human_review)
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
        interval=describe_interval(judgement),
        confidence=found.confidence if found else 0.0,
        reasons=[ReasonPart.model_validate(reason) for reason in judgement.reasons]
        if judgement
        else [],
        needs_review=bool(reasons),
        review_reasons=[ReviewReasonPart(code=code, text=REVIEW_TEXTS[code]) for code in reasons],
        crisis_guidance=GUIDANCE if crisis or band is Band.CRITICAL else None,
        missing_data=judgement.missing_data if judgement else list(DATA_TYPES),
        data_as_of=dict(features.timestamps),
        degraded=list_degraded(judgement, features),
        known_individual=features.is_known,
        release=describe_release(judgement.release) if judgement else None,
    )


def list_review_reasons(
    signal: SelfHarmSignal, found: Estimate | None, threshold: float
) -> list[ReviewReason]:
    """Return every reason why a person must look; empty when none does."""
    checks = {
        ReviewReason.CRISIS_ITEM: signal is SelfHarmSignal.PRESENT,
        ReviewReason.UNREADABLE_CRISIS_ITEM: signal is SelfHarmSignal.UNREADABLE,
        ReviewReason.CRISIS_ITEM_UNKNOWN: signal is SelfHarmSignal.UNKNOWN,
        ReviewReason.SCORE: found is not None and found.score >= threshold,
        ReviewReason.ABSTENTION: found is not None and found.abstains,
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


def describe_interval(judgement: Judgement | None) -> IntervalPart | None:
    if judgement is None:
        return None
    interval = judgement.estimate.interval
    coverage = judgement.release.manifest.conformal.coverage
    return IntervalPart(low=interval.low, high=interval.high, coverage=coverage)


def list_degraded(judgement: Judgement | None, features: Features) -> list[str]:
    down = {"release": judgement is None, "feature_store": features.degraded}
    return [name for name, is_down in down.items() if is_down]


def describe_release(release: Release) -> ReleasePart:
    pins = [member.pin for member in release.members.values()]
    members = [
        MemberPart(name=pin.name, registered_model=pin.registered_model, version=pin.version)
        for pin in pins
    ]
    service = release.manifest.feature_service
    return ReleasePart(
        name=RELEASE_MODEL, version=release.version, feature_service=service, members=members
    )
