"""GET /reviews and what is done with an item of it."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session

from monitoring.metrics import REVIEW_DECISIONS
from serving import audit
from serving.audit.trail import REVIEW_CHANGE, REVIEW_LIST, REVIEW_VIEW
from serving.database.review_terms import ReviewStatus
from serving.database.sessions import run_after_commit
from serving.database.tables import Prediction, ReviewItem
from serving.dependencies import DbSession, RequestTrail, Reviewer, Trail
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
from serving.reviews.answers import (
    DecisionBody,
    ListedReview,
    NoteBody,
    PredictionSummary,
    ReviewDetail,
    ReviewPage,
)
from serving.reviews.crisis_overrides import find_override
from serving.reviews.listing import read_listed
from serving.reviews.queue import (
    QueueFilter,
    add_note,
    claim,
    decide,
    find_item,
    find_position,
    list_events,
    list_items,
    release,
)
from serving.scoring.estimate import Band

router = APIRouter(tags=["review"], route_class=StrictJsonRoute)

#: Readers of a cursor: the parts of a position in the queue.
QUEUE_POSITION = (read_number, read_real, read_real, read_instant, UUID)

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
    found = list(list_items(session, wanted, after, limit + 1))
    shown = found[:limit]
    individuals = sorted({item.anonymized_id for item in shown})
    event = audit.Event(REVIEW_LIST, "list_reviews", details={"individuals": individuals})
    trail.record(event)
    more = write_cursor(*find_position(shown[-1])) if len(found) > limit else None
    listed = read_listed(session, shown)
    items = [ListedReview.make_listed(one, listed.get(one.prediction_id)) for one in shown]
    return ReviewPage(items=items, next_cursor=more)


@router.get("/reviews/{review_id}", responses=ONE_ITEM)
def get_review(
    review_id: UUID, trail: Trail, principal: Reviewer, session: DbSession
) -> ReviewDetail:
    """Show one item with what the screening said and what happened to it since."""
    item = find_item(session, review_id)
    event = audit.Event(REVIEW_VIEW, "view_review", item.anonymized_id, ["prediction"])
    trail.record(event)
    return describe_item(session, item)


@router.post("/reviews/{review_id}/claim", responses=ONE_CHANGE)
def claim_review(
    review_id: UUID, request: Request, trail: Trail, principal: Reviewer, session: DbSession
) -> ReviewDetail:
    """Take an item on. A claim lapses after four hours."""
    item = claim(session, review_id, principal)
    return finish(request, trail, session, item, "claim_review")


@router.delete("/reviews/{review_id}/claim", responses=ONE_CHANGE)
def release_review(
    review_id: UUID, request: Request, trail: Trail, principal: Reviewer, session: DbSession
) -> ReviewDetail:
    """Give an item back to the queue."""
    item = release(session, review_id, principal)
    return finish(request, trail, session, item, "release_review")


@router.post("/reviews/{review_id}/decision", responses=ONE_CHANGE)
def decide_review(
    review_id: UUID,
    body: DecisionBody,
    request: Request,
    trail: Trail,
    principal: Reviewer,
    session: DbSession,
) -> ReviewDetail:
    """Agree, override, or refer. An item that somebody else has claimed is theirs to decide."""
    item = decide(session, review_id, principal, body.to_decision())
    decision, priority = body.decision.value, item.priority
    run_after_commit(session, lambda: REVIEW_DECISIONS.labels(decision, priority).inc())
    return finish(request, trail, session, item, "decide_review")


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
    item = add_note(session, review_id, principal, body.note)
    return finish(request, trail, session, item, "note_review")


def finish(
    request: Request, trail: RequestTrail, session: Session, item: ReviewItem, action: str
) -> ReviewDetail:
    """Audit a change in its own transaction, and show the item as it is now."""
    request.state.anonymized_id = item.anonymized_id
    details = {
        "review_id": str(item.id),
        "decision": item.decision,
        "new_band": item.new_band,
        "reason_code": item.reason_code,
    }
    event = audit.Event(REVIEW_CHANGE, action, item.anonymized_id, ["prediction"], details)
    trail.record(event)
    return describe_item(session, item)


def describe_item(session: Session, item: ReviewItem) -> ReviewDetail:
    prediction = session.get(Prediction, item.prediction_id)
    summary = None
    if prediction is not None:
        overridden = find_override(session, prediction.id) is not None
        summary = PredictionSummary.make(prediction, overridden)
    return ReviewDetail.compose(item, summary, list(list_events(session, item.id)))
