"""The rows of an answered screening: prediction, review item, audit row."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orjson import Fragment

from serving.audit.trail import GENERATE_RISK_SCORE, SCREENING_REQUEST, Event, make_columns
from serving.database.review_terms import ReviewStatus, find_due_time
from serving.errors import Actor
from serving.screening.answers import ScreeningAnswer
from serving.screening.recorder import Record, Row


@dataclass(frozen=True)
class Caller:
    """The caller, the request, and until when an answer is of use (monotonic seconds).

    `idempotency_key` is the caller's name for the request, claimed before it was begun; `batch`
    that of the batch an answer belongs to, which holds one of each individual.
    """

    principal: Actor
    request_id: str | None
    deadline: float
    idempotency_key: str | None = None
    batch: str | None = None


def make_record(
    answer: ScreeningAnswer,
    caller: Caller,
    consented: frozenset[str],
    arm: str,
    inputs: Mapping[str, Any],
    crisis_level: int = 0,
) -> Record:
    """Return every row that an answer leaves.

    `inputs` is what the models saw; `crisis_level` orders crises in the queue.
    """
    # The trend is of earlier rows, which speak for themselves.
    given = Fragment(answer.model_dump_json(exclude={"trend"}))
    used = consented - set(answer.missing_data)
    return Record(
        prediction=make_prediction(answer, caller, arm, given, inputs),
        review_item=make_review_item(answer, crisis_level) if answer.needs_review else None,
        audit_row=make_audit_row(answer, caller, used),
        deadline=caller.deadline,
        idempotency=make_key_row(answer, caller, given),
        is_urgent=answer.decided_by == "crisis_rule",
    )


def make_prediction(
    answer: ScreeningAnswer,
    caller: Caller,
    arm: str,
    given: Fragment,
    inputs: Mapping[str, Any],
) -> Row:
    return {
        "id": answer.prediction_id,
        "anonymized_id": answer.anonymized_id,
        "created_at": answer.created_at,
        "user_id": caller.principal.user_id,
        "risk_score": answer.risk_score,
        "probability": answer.probability,
        "outcome": answer.outcome,
        "risk_band": answer.risk_band,
        "confidence": answer.confidence,
        "needs_review": answer.needs_review,
        "review_reasons": [reason.code for reason in answer.review_reasons],
        "release_version": str(answer.release.version) if answer.release else None,
        "arm": arm,
        "batch": caller.batch,
        "answer": given,
        "inputs": inputs,
    }


def make_audit_row(answer: ScreeningAnswer, caller: Caller, data_types: Iterable[str]) -> Row:
    event = Event(
        SCREENING_REQUEST,
        GENERATE_RISK_SCORE,
        answer.anonymized_id,
        data_types,
        {
            "prediction_id": answer.prediction_id,
            "risk_score": answer.risk_score,
            "release_version": answer.release.version if answer.release else None,
        },
    )
    principal = caller.principal
    return make_columns(principal.user_id, str(principal.role), "success", caller.request_id, event)


def make_review_item(answer: ScreeningAnswer, crisis_level: int) -> Row:
    return {
        "id": uuid.uuid4(),
        "prediction_id": answer.prediction_id,
        "anonymized_id": answer.anonymized_id,
        "created_at": answer.created_at,
        "priority": answer.risk_band,
        "reasons": [reason.code for reason in answer.review_reasons],
        "crisis_level": crisis_level,
        "risk_score": answer.risk_score,
        "status": ReviewStatus.PENDING,
        "due_at": find_due_time(answer.created_at, answer.risk_band),
    }


def make_key_row(answer: ScreeningAnswer, caller: Caller, given: Fragment) -> Row | None:
    if caller.idempotency_key is None:
        return None
    return {
        "user_id": caller.principal.user_id,
        "key": caller.idempotency_key,
        "prediction_id": answer.prediction_id,
        "answer": given,
    }
