"""The queue page: who waits, most urgent first, and the step from an own id to a person."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Request
from starlette.responses import Response

from serving.console.access import QueueWorker
from serving.console.known_ids import read_known_ids
from serving.console.pages import render_page
from serving.database.review_terms import ReviewStatus
from serving.dependencies import DbSession, Trail, WorkerServices
from serving.errors import UnusableError
from serving.http.parameters import (
    read_cursor,
    read_instant,
    read_number,
    read_real,
    write_cursor,
)
from serving.reviews import actions
from serving.reviews.queue import (
    PRIORITIES,
    QueueCount,
    QueueFilter,
    QueueOrder,
    count_open,
)
from serving.scoring.estimate import Band

router = APIRouter(include_in_schema=False)

QUEUE = "/console/queue"
ITEMS_PER_PAGE = 20
ORDER_WORDS = {
    QueueOrder.URGENCY: "Most urgent first",
    QueueOrder.DUE: "Due soonest first",
    QueueOrder.WAITING: "Waiting longest first",
    QueueOrder.NEWEST: "Newest first",
}
#: Readers of a cursor's parts, by order.
POSITIONS: dict[QueueOrder, tuple[Any, ...]] = {
    QueueOrder.URGENCY: (read_number, read_real, read_real, read_instant, UUID),
    QueueOrder.DUE: (read_instant, UUID),
    QueueOrder.WAITING: (read_instant, UUID),
    QueueOrder.NEWEST: (read_instant, UUID),
}


class Owner(StrEnum):
    """Whose items a page shows."""

    ANYONE = ""
    MINE = "mine"
    UNCLAIMED = "unclaimed"


@dataclass(frozen=True)
class QueueView:
    """The parameters of a queue page's address."""

    band: Band | None = None
    owner: Owner = Owner.ANYONE
    overdue: bool = False
    order: QueueOrder = QueueOrder.URGENCY
    cursor: str | None = None

    def make_filter(self, user_id: str) -> QueueFilter:
        return QueueFilter(
            status=ReviewStatus.PENDING if self.owner is Owner.UNCLAIMED else None,
            priority=self.band,
            claimed_by=user_id if self.owner is Owner.MINE else None,
            overdue=True if self.overdue else None,
        )

    def make_address(self, cursor: str | None = None) -> str:
        """Return the address of this view, at a position of the queue."""
        parts = {
            "band": self.band,
            "owner": self.owner,
            "overdue": "yes" if self.overdue else None,
            "order": self.order if self.order is not QueueOrder.URGENCY else None,
            "cursor": cursor,
        }
        query = urlencode({name: value for name, value in parts.items() if value})
        return f"{QUEUE}?{query}" if query else QUEUE


@dataclass(frozen=True)
class BandCount:
    band: str
    items: int
    overdue: int


Term = TypeVar("Term", bound=StrEnum)


def read_view(query: Mapping[str, str]) -> QueueView:
    """Return the view of an address; raises UnusableError for parameters that no form sends."""
    band = read_term(Band, query.get("band"))
    return QueueView(
        band=band,
        owner=read_term(Owner, query.get("owner")) or Owner.ANYONE,
        overdue=query.get("overdue") == "yes",
        order=read_term(QueueOrder, query.get("order")) or QueueOrder.URGENCY,
        cursor=query.get("cursor") or None,
    )


def read_term(terms: type[Term], given: str | None) -> Term | None:
    """Return a term of a filter, None where none is given; raises UnusableError."""
    if not given:
        return None
    try:
        return terms(given)
    except ValueError:
        raise UnusableError("the address names a list that does not exist") from None


def sum_by_band(counts: list[QueueCount]) -> list[BandCount]:
    """Return how many items are open in each band, most urgent first, empty bands included."""
    return [
        BandCount(
            band,
            sum(count.items for count in counts if count.priority == band),
            sum(count.overdue for count in counts if count.priority == band),
        )
        for band in PRIORITIES
    ]


@router.get(QUEUE)
def show_queue(
    request: Request,
    signed_in: QueueWorker,
    trail: Trail,
    session: DbSession,
    services: WorkerServices,
) -> Response:
    """Show one page of the queue."""
    view = read_view(request.query_params)
    after = read_cursor(view.cursor, *POSITIONS[view.order]) if view.cursor else None
    wanted = view.make_filter(signed_in.principal.user_id)
    page = actions.list_queue(session, trail, wanted, after, ITEMS_PER_PAGE, view.order)
    values = {
        "view": view,
        "bands": sum_by_band(count_open(session)),
        "orders": ORDER_WORDS,
        "page": page,
        "first": view.make_address() if view.cursor else None,
        "next": view.make_address(write_cursor(*page.next_position))
        if page.next_position
        else None,
        "known_ids": read_known_ids(request, services.settings),
    }
    return render_page(request, "queue.html", values)
