"""What the hook answers: screen on new answers, else show what is stored, else no card."""

from datetime import UTC, datetime
from typing import Any

from serving import audit
from serving.audit.trail import PREDICTION_VIEW, Event, record
from serving.database.rows import describe_row
from serving.database.sessions import open_session
from serving.database.threads import run_apart
from serving.errors import ConsentMissingError
from serving.fhir.cards import is_shown, make_card, make_notice
from serving.fhir.elements import Resource
from serving.fhir.hooks import HookRequest, has_died, list_resources
from serving.fhir.reading import Findings, Survey, choose_current, make_survey_data, read_surveys
from serving.fhir.risk_assessments import make_risk_assessment
from serving.fhir.screening import (
    EhrCaller,
    require_one_person,
    rests_on,
    screen_surveys,
)
from serving.fhir.searching import PatientSearch, search_predictions
from serving.http.guidance import choose_guidance
from serving.reviews.queue import find_newest_of_prediction, find_prediction
from serving.screening.answers import ScreeningAnswer
from serving.screening.dependencies import ScreeningDependencies
from serving.screening.requests import ScreeningRequest
from serving.screening.screen import require_consent

SEEN = "view_card"
NOTHING_SHOWN = "view_no_card"


async def answer_hook(
    hook: HookRequest, caller: EhrCaller, dependencies: ScreeningDependencies
) -> list[Resource]:
    """Return the cards of a patient who is being viewed; every outcome is audited.

    Raises PrefetchMissingError, InvalidRequestError for another person's answers, and what a
    screening raises except that a missing consent is a card.
    """
    resources = list_resources(hook)
    settings = dependencies.settings
    anonymized_id = caller.hash_patient(hook.context.patientId, settings)
    if has_died(resources):
        await run_apart(record_no_card, dependencies, caller, anonymized_id, "deceased")
        return []
    findings = read_surveys(resources, settings.zone)
    require_one_person(findings.surveys, hook.context.patientId)
    current = choose_current(findings.surveys, datetime.now(UTC))
    try:
        cards = await find_cards(hook, current, anonymized_id, caller, dependencies)
    except ConsentMissingError as refusal:
        await run_apart(audit.record_refusal, dependencies.engine, refusal, caller.request_id)
        return [explain_consent(refusal, dependencies)]
    return [*explain_unreadable(findings, dependencies), *cards]


async def find_cards(
    hook: HookRequest,
    current: dict[str, Survey],
    anonymized_id: str,
    caller: EhrCaller,
    dependencies: ScreeningDependencies,
) -> list[Resource]:
    if make_survey_data(current) and not await run_apart(
        is_known, dependencies, anonymized_id, current
    ):
        answer = await screen_surveys(current, anonymized_id, caller, dependencies)
        return await run_apart(make_cards, dependencies, caller, hook, answer)
    body = ScreeningRequest(anonymized_id=anonymized_id)
    await require_consent(body, anonymized_id, caller.principal, dependencies)
    return await run_apart(show_stored, dependencies, caller, hook, anonymized_id)


def is_known(
    dependencies: ScreeningDependencies, anonymized_id: str, current: dict[str, Survey]
) -> bool:
    """Return True if the newest prediction already rests on these answers."""
    with open_session(dependencies.engine) as session:
        latest = search_predictions(session, PatientSearch(anonymized_id), 1)
        return bool(latest) and rests_on(latest[0], current)


def show_stored(
    dependencies: ScreeningDependencies, caller: EhrCaller, hook: HookRequest, anonymized_id: str
) -> list[Resource]:
    """Return the card of the newest prediction; its viewing is audited."""
    with open_session(dependencies.engine) as session:
        latest = search_predictions(session, PatientSearch(anonymized_id), 1)
        answers = [ScreeningAnswer.model_validate(prediction.answer) for prediction in latest]
    if not answers:
        record_no_card(dependencies, caller, anonymized_id, "no prediction")
        return []
    return make_cards(dependencies, caller, hook, answers[0])


def make_cards(
    dependencies: ScreeningDependencies,
    caller: EhrCaller,
    hook: HookRequest,
    answer: ScreeningAnswer,
) -> list[Resource]:
    """Return the card of an answer, none where it does not interrupt; either is audited."""
    answer_fields = answer.model_dump(mode="json")
    shown = is_shown(answer_fields)
    settings = dependencies.settings
    subject = {"reference": f"Patient/{hook.context.patientId}"}
    with open_session(dependencies.engine) as session:
        details = {"prediction_id": answer_fields["prediction_id"]}
        event = Event(
            PREDICTION_VIEW,
            SEEN if shown else NOTHING_SHOWN,
            answer.anonymized_id,
            ["prediction"],
            details,
        )
        record(session, caller.principal, caller.request_id, event)
        if not shown:
            return []
        prediction = find_prediction(session, answer.prediction_id)
        assessment = make_risk_assessment(describe_row(prediction), subject)
        item = find_newest_of_prediction(session, answer.prediction_id)
        review_id = item.id if item else None
    guidance = choose_guidance(settings) if answer.decided_by == "crisis_rule" else None
    # The EHR gives the resource its own id.
    created = {name: value for name, value in assessment.items() if name != "id"}
    return [make_card(answer_fields, review_id, created, settings.public_url, guidance)]


def record_no_card(
    dependencies: ScreeningDependencies, caller: EhrCaller, anonymized_id: str, reason: str
) -> None:
    event = Event(PREDICTION_VIEW, NOTHING_SHOWN, anonymized_id, details={"reason": reason})
    with open_session(dependencies.engine) as session:
        record(session, caller.principal, caller.request_id, event)


def explain_consent(refusal: ConsentMissingError, dependencies: ScreeningDependencies) -> Resource:
    """Return the card of a person without consent: nothing was evaluated, crises included."""
    settings = dependencies.settings
    detail = f"{refusal.detail}\n\nNothing was evaluated. {choose_guidance(settings)}"
    return make_notice(
        "This person has no active consent for screening; nothing was evaluated.",
        detail,
        settings.public_url,
        f"/console/individuals/{refusal.anonymized_id}/consents",
        "Record a consent",
    )


def explain_unreadable(findings: Findings, dependencies: ScreeningDependencies) -> list[Resource]:
    """Return a card that names the elements which could not be read, none where all were."""
    if not findings.problems:
        return []
    settings = dependencies.settings
    named = "\n".join(f"- {problem}" for problem in findings.problems)
    notice: dict[str, Any] = make_notice(
        "A questionnaire in the record could not be read; ask about it, item 9 above all.",
        f"{named}\n\n{choose_guidance(settings)}",
        settings.public_url,
        "/console/screen",
        "Enter the answers",
    )
    return [notice | {"indicator": "warning"}]
