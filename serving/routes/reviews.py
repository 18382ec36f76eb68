"""GET /reviews and what is done with an item of it."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import ConfigDict, Field
from sqlalchemy.orm import Session

from serving.database.review_terms import ReviewStatus
from serving.database.tables import Prediction, ReviewItem
from serving.dependencies import DbSession, Reviewer, Trail, WorkerServices
from serving.http.individual import IndividualBody, resolve_individual
from serving.http.parameters import (
    Cursor,
    PageSize,
    Word,
    read_cursor,
    read_instant,
    read_number,
    read_real,
    write_cursor,
)
from serving.http.problems import GUARDED, describe_problems
from serving.http.strict_json import StrictJsonRoute
from serving.reviews import actions
from serving.reviews.actions import ListedQueue
from serving.reviews.answers import (
    ContactBody,
    DecisionBody,
    ListedReview,
    NoteBody,
    PredictionSummary,
    ReviewDetail,
    ReviewPage,
)
from serving.reviews.contacts import list_contacts
from serving.reviews.crisis_overrides import find_override
from serving.reviews.queue import QueueFilter, list_events
from serving.scoring.estimate import Band

router = APIRouter(tags=["review"], route_class=StrictJsonRoute)

#: Readers of a cursor: the parts of a position in the queue.
QUEUE_POSITION = (read_number, read_real, read_real, read_instant, UUID)

#: Review items of one person that a search returns.
MOST_OF_ONE_PERSON = 100

ONE_ITEM = describe_problems(*GUARDED, 404)
ONE_CHANGE = describe_problems(*GUARDED, 404, 409)


@router.get("/reviews", responses=describe_problems(*GUARDED))
def list_reviews(
    trail: Trail,
    principal: Reviewer,
    session: DbSession,
    status: Annotated[ReviewStatus | None, Query(description="By default all open ones.")] = None,
    priority: Band | None = None,
    reason: Word = None,
    claimed_by: Word = None,
    overdue: bool | None = None,
    limit: PageSize = 50,
    cursor: Cursor = None,
) -> ReviewPage:
    """List review items: by band, crises by item 9, then by score, then by waiting time."""
    wanted = QueueFilter(status, priority, reason, claimed_by, overdue)
    after = read_cursor(cursor, *QUEUE_POSITION) if cursor else None
    return show_page(actions.list_queue(session, trail, wanted, after, limit))


def show_page(page: ListedQueue) -> ReviewPage:
    more = write_cursor(*page.next_position) if page.next_position else None
    items = [
        ListedReview.make_listed(item, page.screenings.get(item.prediction_id))
        for item in page.items
    ]
    return ReviewPage(items=items, next_cursor=more)


class ReviewsOfBody(IndividualBody):
    """A person whose review items are listed; a body, because addresses end up in logs."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"patient_id": "4711"}]})

    status: Annotated[ReviewStatus, Field(strict=False)] | None = Field(
        default=None, description="By default all open ones."
    )


@router.post("/reviews/search", responses=describe_problems(*GUARDED))
def find_reviews(
    body: ReviewsOfBody,
    trail: Trail,
    principal: Reviewer,
    session: DbSession,
    services: WorkerServices,
) -> ReviewPage:
    """List the review items of a person, named by your own patient_id or by pseudonym."""
    anonymized_id = resolve_individual(body, services.settings)
    wanted = QueueFilter(status=body.status, anonymized_id=anonymized_id)
    return show_page(actions.list_queue(session, trail, wanted, None, MOST_OF_ONE_PERSON))


@router.get("/reviews/{review_id}", responses=ONE_ITEM)
def get_review(
    review_id: UUID, trail: Trail, principal: Reviewer, session: DbSession
) -> ReviewDetail:
    """Show one item with its screening and its history."""
    return describe_item(session, actions.view_item(session, trail, review_id))


@router.post("/reviews/{review_id}/claim", responses=ONE_CHANGE)
def claim_review(
    review_id: UUID, request: Request, trail: Trail, principal: Reviewer, session: DbSession
) -> ReviewDetail:
    """Take an item on. A claim lapses after four hours."""
    item = actions.claim(session, trail, review_id, principal)
    return show_change(request, session, item)


@router.delete("/reviews/{review_id}/claim", responses=ONE_CHANGE)
def release_review(
    review_id: UUID, request: Request, trail: Trail, principal: Reviewer, session: DbSession
) -> ReviewDetail:
    """Give an item back to the queue."""
    item = actions.release(session, trail, review_id, principal)
    return show_change(request, session, item)


@router.post("/reviews/{review_id}/decision", responses=ONE_CHANGE)
def decide_review(
    review_id: UUID,
    body: DecisionBody,
    request: Request,
    trail: Trail,
    principal: Reviewer,
    session: DbSession,
) -> ReviewDetail:
    """Agree, override, or refer. An item claimed by another clinician returns 409."""
    item = actions.decide(session, trail, review_id, principal, body.to_decision())
    return show_change(request, session, item)


@router.post("/reviews/{review_id}/notes", responses=ONE_ITEM)
def note_review(
    review_id: UUID,
    body: NoteBody,
    request: Request,
    trail: Trail,
    principal: Reviewer,
    session: DbSession,
) -> ReviewDetail:
    """Write a note beside an item."""
    item = actions.add_note(session, trail, review_id, principal, body.note)
    return show_change(request, session, item)


@router.post("/reviews/{review_id}/contacts", responses=ONE_ITEM)
def record_contact(
    review_id: UUID,
    body: ContactBody,
    request: Request,
    trail: Trail,
    principal: Reviewer,
    session: DbSession,
) -> ReviewDetail:
    """Record an attempt to reach the person: how, with which outcome, and what is planned next."""
    item = actions.add_contact(session, trail, review_id, principal, body.to_contact())
    return show_change(request, session, item)


def show_change(request: Request, session: Session, item: ReviewItem) -> ReviewDetail:
    """Return a changed item as it is now."""
    request.state.anonymized_id = item.anonymized_id
    return describe_item(session, item)


def describe_item(session: Session, item: ReviewItem) -> ReviewDetail:
    prediction = session.get(Prediction, item.prediction_id)
    summary = None
    if prediction is not None:
        overridden = find_override(session, prediction.id) is not None
        summary = PredictionSummary.make(prediction, overridden)
    events, contacts = list_events(session, item.id), list_contacts(session, item.id)
    return ReviewDetail.compose(item, summary, events, contacts)
