"""When clinicians last decided reviews of individuals: what closes a stored crisis."""

from collections.abc import Sequence

from sqlalchemy import Engine, Text, func, select, type_coerce
from sqlalchemy.dialects.postgresql import ARRAY

from serving.database.review_terms import CRISIS_REASONS, ReviewStatus
from serving.database.sessions import open_session
from serving.database.tables import ReviewItem
from serving.scoring.assessment import LastDecisions


def read_last_decisions(engine: Engine, individuals: Sequence[str]) -> dict[str, LastDecisions]:
    """Return the last decisions about each of the individuals who have any, in one query."""
    is_crisis = type_coerce(ReviewItem.reasons, ARRAY(Text)).overlap(list(CRISIS_REASONS))
    latest = func.max(ReviewItem.decided_at)
    statement = (
        select(ReviewItem.anonymized_id, latest, latest.filter(is_crisis))
        .where(ReviewItem.anonymized_id.in_(individuals), ReviewItem.status == ReviewStatus.DECIDED)
        .group_by(ReviewItem.anonymized_id)
    )
    with open_session(engine) as session:
        rows = session.execute(statement).all()
    return {person: LastDecisions(any_at, crisis_at) for person, any_at, crisis_at in rows}
