"""A screening under an idempotency key: answered from the record, or by screening once."""

from dataclasses import replace
from datetime import timedelta

from serving.audit import Event, record
from serving.audit.trail import PREDICTION_VIEW
from serving.database.sessions import open_session
from serving.database.threads import run_apart
from serving.errors import DeadlineExceededError, ProblemError
from serving.scoring.crisis import find_sent_crisis
from serving.screening.answers import ScreeningAnswer
from serving.screening.dependencies import ScreeningDependencies
from serving.screening.idempotency import claim_key, give_up_key, hash_body, hash_key
from serving.screening.records import Caller
from serving.screening.requests import ScreeningRequest
from serving.screening.screen import make_answers, require_consent, screen


async def screen_once(
    body: ScreeningRequest, anonymized_id: str, caller: Caller, dependencies: ScreeningDependencies
) -> ScreeningAnswer:
    """Answer a request with an idempotency key: from the record, or by screening once."""
    assert caller.idempotency_key is not None
    secret = dependencies.settings.anonymization_salt.get_secret_value()
    user, key = caller.principal.user_id, hash_key(caller.idempotency_key, secret)
    caller = replace(caller, idempotency_key=key)
    content = body.model_dump_json(exclude={"patient_id", "anonymized_id"})
    digest = hash_body(anonymized_id, content)
    patience = timedelta(seconds=2 * dependencies.settings.screening_timeout)
    try:
        answer = await run_apart(claim_key, dependencies.engine, user, key, digest, patience)
    except ProblemError as error:
        error.shows_guidance = find_sent_crisis(make_answers(body)).forces_top_band
        raise
    if answer is not None:
        return await replay(ScreeningAnswer.model_validate(answer), body, caller, dependencies)
    try:
        return await screen(body, anonymized_id, caller, dependencies)
    except DeadlineExceededError:
        raise  # it may yet be recorded under the key, which a repetition then finds
    except Exception:
        await run_apart(give_up_key, dependencies.engine, user, key)
        raise


async def replay(
    answer: ScreeningAnswer,
    body: ScreeningRequest,
    caller: Caller,
    dependencies: ScreeningDependencies,
) -> ScreeningAnswer:
    """Return a recorded answer again: under the consent of now, and audited as a viewing."""
    person = answer.anonymized_id
    await require_consent(body, person, caller.principal, dependencies)
    details = {"prediction_id": str(answer.prediction_id)}
    event = Event(PREDICTION_VIEW, "replay_screening", person, ["prediction"], details)
    await run_apart(record_viewing, dependencies, caller, event)
    return answer


def record_viewing(dependencies: ScreeningDependencies, caller: Caller, event: Event) -> None:
    with open_session(dependencies.engine) as session:
        record(session, caller.principal, caller.request_id, event)
