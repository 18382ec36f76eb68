"""One screening: consent, features, scores, crisis rule, answer, record.

Everything it leaves (prediction, review item, audit row) is committed together before the
answer is returned, or nothing is. It waits for the feature store and the disk, and computes
in between: one individual takes about a millisecond.
"""

import asyncio
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog
from starlette.concurrency import run_in_threadpool

from feature_repo.online import Answers
from feature_repo.pseudonyms import pseudonymise
from monitoring.logging import describe_error
from monitoring.metrics import CONSENT_FAILURES, CONSENT_VERIFICATIONS
from serving import audit
from serving.consent.in_force import SCREENING, KnownConsent, combine_consents
from serving.database.sessions import open_session
from serving.errors import (
    Actor,
    ConsentMissingError,
    ReleaseUnavailableError,
    ScoringFailedError,
)
from serving.releases.watcher import Choice
from serving.scoring.assessment import Case, Judgement, Wanted, describe_inputs, judge
from serving.scoring.crisis import SelfHarmSignal, read_signal
from serving.scoring.release import Release
from serving.screening.answers import ScreeningAnswer, TrendPart
from serving.screening.composition import compose_answer
from serving.screening.records import Caller, make_record
from serving.screening.reporting import count_screening
from serving.screening.requests import ScreeningRequest, SurveyData
from serving.services import Services
from serving.settings import Settings

log = structlog.get_logger("serving.screening")


@dataclass(frozen=True)
class Judged:
    """What the chosen release said of a case, None where it said nothing."""

    case: Case
    signal: SelfHarmSignal
    choice: Choice | None = None
    judgement: Judgement | None = None

    @property
    def degraded(self) -> list[str]:
        """Dependencies that the answer had to do without."""
        down = {"release": self.judgement is None, "feature_store": self.case.store_is_away}
        return [name for name, is_down in down.items() if is_down]


async def screen(
    request: ScreeningRequest, anonymized_id: str, caller: Caller, services: Services
) -> ScreeningAnswer:
    """Answer one screening once its records are durable.

    Raises ConsentMissingError, ReleaseUnavailableError and ScoringFailedError (unless the
    crisis rule decides without models), OverloadedError and DeadlineExceededError; nothing is
    recorded then.
    """
    signal = read_signal(request.answers.phq9, request.answers.phq9_score)
    with services.load.admit(urgent=signal.forces_top_band):
        consented = await require_consent(request, anonymized_id, caller.principal, services)
        judged = await judge_individual(request, anonymized_id, signal, consented, services)
        answer = compose_answer(
            anonymized_id, judged.signal, judged.judgement, judged.degraded, services.thresholds
        )
        answer = await record_answer(answer, caller, judged, services)
        count_screening(answer)
        if judged.choice is not None:
            services.shadow.submit(answer, judged.choice, judged.case)
        return answer


async def require_consent(
    request: ScreeningRequest, anonymized_id: str, principal: Actor, services: Services
) -> frozenset[str]:
    """Return the data types that may be used, or raise ConsentMissingError.

    Consent is judged now, not at the index time: a withdrawal binds for what was answered before.
    """
    CONSENT_VERIFICATIONS.inc()
    known = services.accountability.consents.get_known(anonymized_id)
    consented = find_consented(known or ())
    if not suffices(consented, request):
        # Nobody is refused on what a cache says: the consent may be a moment old.
        known = await run_in_threadpool(read_consents, services, anonymized_id)
        consented = find_consented(known)
    if suffices(consented, request):
        return consented
    CONSENT_FAILURES.inc()
    what = "survey answers" if consented else "any data type"
    raise ConsentMissingError(
        f"no consent in force covers {what} for the purpose {SCREENING}",
        principal,
        audit.GENERATE_RISK_SCORE,
        anonymized_id,
    )


def find_consented(known: tuple[KnownConsent, ...]) -> frozenset[str]:
    return combine_consents(known, SCREENING, datetime.now(UTC))


def suffices(consented: frozenset[str], request: ScreeningRequest) -> bool:
    """Tell whether anything may be used, and the answers that were sent among it."""
    return bool(consented) and ("survey" in consented or not request.answers.has_answers)


def read_consents(services: Services, anonymized_id: str) -> tuple[KnownConsent, ...]:
    with open_session(services.engine) as session:
        return services.accountability.consents.read(session, anonymized_id)


async def judge_individual(
    request: ScreeningRequest,
    anonymized_id: str,
    signal: SelfHarmSignal,
    consented: frozenset[str],
    services: Services,
) -> Judged:
    """Return what the release for this individual says.

    Where a candidate cannot score, Production answers; where nothing can, only the crisis rule
    does, which needs nobody's word.
    """
    choice = services.releases.choose(anonymized_id)
    case = Case(make_answers(request), consented)
    if choice is None:
        require_crisis(signal)
        return Judged(case, signal)
    stored = await services.features.fetch(choice.list_views(), [anonymized_id])
    row = None if stored is None else stored[anonymized_id]
    case = replace(case, row=row, store_is_away=stored is None)
    signal = case.read_signal(choice.release)
    for attempt in (choice, *choice.list_fallbacks()):
        try:
            judgement = apply_release(attempt.release, case, services.wanted)
            return Judged(case, signal, attempt, judgement)
        except ScoringFailedError as error:
            failure = error
            log.error("release could not score", arm=attempt.arm, error=describe_error(error))
    if not signal.forces_top_band:
        raise failure
    return Judged(case, signal, choice)


def apply_release(release: Release, case: Case, wanted: Wanted) -> Judgement:
    """Return a release's judgement; raises ScoringFailedError whatever goes wrong."""
    try:
        return judge(release, case, wanted)
    except ScoringFailedError:
        raise
    # Production answers for a candidate, and the crisis rule for everybody, whichever part of a
    # release fails, explanations included.
    except Exception as error:
        raise ScoringFailedError("the release could not be applied") from error


def find_deadline(settings: Settings) -> float:
    """Return until when (monotonic seconds) an answer is of use to who asks now."""
    return time.monotonic() + settings.screening_timeout


def resolve_individual(request: ScreeningRequest, settings: Settings) -> str:
    """Return the pseudonym; an identifier is hashed here and goes no further."""
    if request.anonymized_id is not None:
        return request.anonymized_id
    assert request.patient_id is not None  # the request's own validation
    return pseudonymise(request.patient_id, settings.anonymization_salt.get_secret_value())


def require_crisis(signal: SelfHarmSignal) -> None:
    if not signal.forces_top_band:
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
    answer: ScreeningAnswer, caller: Caller, judged: Judged, services: Services
) -> ScreeningAnswer:
    """Make an answer durable; return it with the trend of what was answered before."""
    judgement = judged.judgement
    inputs = describe_inputs(judgement, judged.case.answers) if judgement else {}
    arm = judged.choice.arm if judged.choice else "production"
    record = make_record(answer, caller, judged.case.consented, arm, inputs)
    past = await asyncio.wrap_future(services.recorder.submit(record))
    return answer.model_copy(update={"trend": [TrendPart.model_validate(one) for one in past]})
