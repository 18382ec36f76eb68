"""One screening: consent, features, scores, crisis rule, answer, record.

Everything it leaves (prediction, review item, audit row) is committed together before the
answer is returned, or nothing is. It waits for the feature store and the disk, and computes
in between: one individual takes about a millisecond.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog

from feature_repo.consent_terms import SCREENING
from feature_repo.online import Answers
from feature_repo.postgres_deadlines import REQUEST_DEADLINE
from mlruns_config.severity import load_severity_rules
from monitoring.logging import describe_error
from monitoring.metrics import CONSENT_FAILURES, CONSENT_VERIFICATIONS
from serving import audit
from serving.consent.in_force import KnownConsent, combine_consents
from serving.database.threads import run_apart
from serving.errors import (
    Actor,
    ConsentMissingError,
    MaybeRecordedError,
    ReleaseUnavailableError,
    ScoringFailedError,
)
from serving.releases.watcher import Choice
from serving.scoring.assessment import (
    Assessment,
    Case,
    ExplanationOptions,
    LastDecisions,
    RuleFindings,
    assess,
    describe_inputs,
)
from serving.scoring.loaded_release import Release
from serving.screening.answers import ScreeningAnswer, TrendPart
from serving.screening.composition import compose_answer
from serving.screening.decisions import read_last_decisions
from serving.screening.dependencies import ScreeningDependencies
from serving.screening.recorder import ErasedMeanwhileError
from serving.screening.records import Caller, make_record
from serving.screening.reporting import count_screening
from serving.screening.requests import ScreeningRequest, SurveyData
from serving.settings import Settings

log = structlog.get_logger("serving.screening")


@dataclass(frozen=True)
class AssessedCase:
    """A case with what rules and the chosen release find in it; without a release, rules alone."""

    case: Case
    findings: RuleFindings
    choice: Choice | None = None
    assessment: Assessment | None = None

    @property
    def degraded(self) -> list[str]:
        """Dependencies that the answer had to do without."""
        down = {"release": self.assessment is None, "feature_store": self.case.store_is_away}
        return [name for name, is_down in down.items() if is_down]


async def screen(
    request: ScreeningRequest,
    anonymized_id: str,
    caller: Caller,
    dependencies: ScreeningDependencies,
) -> ScreeningAnswer:
    """Answer one screening once its records are durable.

    Raises ConsentMissingError, ReleaseUnavailableError and ScoringFailedError (unless the
    crisis rule decides without models), OverloadedError and DeadlineExceededError: nothing is
    recorded then. MaybeRecordedError, where the time was up or the database's reply lost.
    """
    try:
        async with asyncio.timeout(caller.deadline - time.monotonic()):
            return await screen_in_time(request, anonymized_id, caller, dependencies)
    except TimeoutError:
        raise MaybeRecordedError from None


async def screen_in_time(
    request: ScreeningRequest,
    anonymized_id: str,
    caller: Caller,
    dependencies: ScreeningDependencies,
) -> ScreeningAnswer:
    consented = await require_consent(request, anonymized_id, caller.principal, dependencies)
    choice = dependencies.releases.choose(anonymized_id)
    case, findings = await collect_case(request, anonymized_id, consented, choice, dependencies)
    # Stored crises count too, so the case is read before anything is refused for load.
    with dependencies.load.admit(urgent=findings.crisis.forces_top_band):
        assessed = assess_case(case, findings, choice, dependencies.explanations)
        answer = compose_answer(
            anonymized_id, findings, assessed.assessment, assessed.degraded, dependencies.thresholds
        )
        answer = await record_answer(answer, caller, assessed, dependencies)
        count_screening(answer)
        if assessed.choice is not None:
            dependencies.shadow.submit(answer, assessed.choice, case)
        return answer


async def require_consent(
    request: ScreeningRequest,
    anonymized_id: str,
    principal: Actor,
    dependencies: ScreeningDependencies,
) -> frozenset[str]:
    """Return the data types that may be used, or raise ConsentMissingError.

    Consent is checked now, not at the index time: a withdrawal binds for what was answered before.
    """
    CONSENT_VERIFICATIONS.inc()
    consents = dependencies.consents.get_known(anonymized_id)
    consented = find_consented(consents or (), dependencies)
    if not suffices(consented, request):
        # A refusal never rests on the cache: the consent may be a moment old.
        consents = await dependencies.consents.read(anonymized_id)
        consented = find_consented(consents, dependencies)
    if suffices(consented, request):
        return consented
    raise make_consent_error(
        "survey answers" if consented else "any data type", principal, anonymized_id
    )


def make_consent_error(what: str, principal: Actor, anonymized_id: str) -> ConsentMissingError:
    """Return the refusal of a screening without consent, counted; `what` is not covered."""
    CONSENT_FAILURES.inc()
    return ConsentMissingError(
        f"This person has no active consent that covers {what} for {SCREENING}. Record one with "
        "PUT /consents/{anonymized_id}, or POST /consents with your own patient_id.",
        principal,
        audit.GENERATE_RISK_SCORE,
        anonymized_id,
    )


def find_consented(
    consents: tuple[KnownConsent, ...], dependencies: ScreeningDependencies
) -> frozenset[str]:
    return combine_consents(consents, SCREENING, dependencies.consents.now())


def suffices(consented: frozenset[str], request: ScreeningRequest) -> bool:
    """Tell whether anything may be used, and the answers that were sent among it."""
    return bool(consented) and ("survey" in consented or not request.answers.has_answers)


async def collect_case(
    request: ScreeningRequest,
    anonymized_id: str,
    consented: frozenset[str],
    choice: Choice | None,
    dependencies: ScreeningDependencies,
) -> tuple[Case, RuleFindings]:
    """Return everything a screening may use, and what the rules find in it.

    Clinicians' decisions are read only where they matter to what the rules find.
    """
    case = Case(make_answers(request), consented)
    if choice is None:
        return case, apply_rules(case, choice)
    stored = await dependencies.features.fetch(choice.list_views(), [anonymized_id])
    row = None if stored is None else stored[anonymized_id]
    case = replace(case, row=row, store_is_away=stored is None)
    findings = apply_rules(case, choice)
    if not rest_on_stored_answers(findings, case.answers):
        return case, findings
    decisions = await run_apart(read_last_decisions, dependencies.engine, [anonymized_id])
    case = replace(case, decided=decisions.get(anonymized_id, LastDecisions()))
    return case, apply_rules(case, choice)


def rest_on_stored_answers(findings: RuleFindings, answers: Answers) -> bool:
    """Return True if a rule holds by what is stored, so that a decision since then matters."""
    sent = answers.phq9 is not None or answers.phq9_total is not None
    return findings.crisis.is_stored or (bool(findings.severity) and not sent)


def apply_rules(case: Case, choice: Choice | None) -> RuleFindings:
    return case.apply_rules(choice.release if choice else None, load_severity_rules())


def assess_case(
    case: Case, findings: RuleFindings, choice: Choice | None, options: ExplanationOptions
) -> AssessedCase:
    """Return the case with the assessment of the first release that can score it.

    Where a candidate cannot score, Production answers; where none can, the rules do, which need
    no model. Raises ReleaseUnavailableError and ScoringFailedError where no rule holds either.
    """
    if choice is None:
        require_rules(findings)
        return AssessedCase(case, findings)
    attempts = [choice, *choice.list_fallbacks()]
    release, assessment = assess_or_leave_to_rules(
        [attempt.release for attempt in attempts], case, findings, options
    )
    answering = next((attempt for attempt in attempts if attempt.release is release), choice)
    return AssessedCase(case, findings, answering, assessment)


def assess_or_leave_to_rules(
    releases: Sequence[Release], case: Case, findings: RuleFindings, options: ExplanationOptions
) -> tuple[Release | None, Assessment | None]:
    """Return the first release that can score a case, with its assessment.

    Both are None where none can and a rule decides without a model. Raises ScoringFailedError
    where none can and no rule holds.
    """
    for release in releases:
        try:
            return release, apply_release(release, case, options)
        except ScoringFailedError as error:
            failure = error
            log.error(
                "release could not score", version=release.version, error=describe_error(error)
            )
    if not findings.decide_alone:
        raise failure
    return None, None


def apply_release(release: Release, case: Case, options: ExplanationOptions) -> Assessment:
    """Return a release's assessment; raises ScoringFailedError after any error."""
    try:
        return assess(release, case, options)
    except ScoringFailedError:
        raise
    # Production answers for a candidate, and the rules for all, whichever part of a
    # release fails, explanations included.
    except Exception as error:
        raise ScoringFailedError("the release could not be applied") from error


def find_deadline(settings: Settings) -> float:
    """Return until when (monotonic seconds) an answer is of use: counted from its arrival."""
    arrived_with = REQUEST_DEADLINE.get()
    return arrived_with or time.monotonic() + settings.screening_timeout


def require_rules(findings: RuleFindings) -> None:
    """Raise ReleaseUnavailableError where no rule decides without a release."""
    if not findings.decide_alone:
        raise ReleaseUnavailableError(
            "the registry's Production release could not be loaded yet; try again shortly"
        )


def make_answers(request: ScreeningRequest) -> Answers:
    given: SurveyData = request.answers
    return Answers(
        index_time=request.index_time or datetime.now(UTC),
        phq9=given.phq9,
        gad7=given.gad7,
        phq9_total=given.phq9_score,
    )


async def record_answer(
    answer: ScreeningAnswer,
    caller: Caller,
    assessed: AssessedCase,
    dependencies: ScreeningDependencies,
) -> ScreeningAnswer:
    """Make an answer durable; return it with the trend of what was answered before.

    Raises ConsentMissingError when the individual was erased in between.
    """
    assessment = assessed.assessment
    inputs = describe_inputs(assessment, assessed.case.answers) if assessment else {}
    arm = assessed.choice.arm if assessed.choice else "production"
    level = assessed.findings.crisis.level
    record = make_record(answer, caller, assessed.case.consented, arm, inputs, level)
    try:
        past = await asyncio.wrap_future(dependencies.recorder.submit(record))
    except ErasedMeanwhileError:
        raise make_consent_error("any data type", caller.principal, answer.anonymized_id) from None
    return answer.model_copy(
        update={"trend": [TrendPart.model_validate(prediction) for prediction in past]}
    )
