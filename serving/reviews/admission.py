"""Which new review items join the queue when a person may be waiting already."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Engine

from serving.database.sessions import open_session
from serving.database.tables import ReviewItem
from serving.reviews.queue import find_rank, list_open
from serving.screening.recorder import Record, Row


def drop_waiting_items(engine: Engine, records: Sequence[Record]) -> list[Record]:
    """Return the records without the review items of people who are waiting already.

    A batch each night would otherwise fill the queue with the same individuals.
    """
    people = [record.review_item["anonymized_id"] for record in records if record.review_item]
    with open_session(engine) as session:
        items = list_open(session, people)
    waiting: dict[str, list[ReviewItem]] = {}
    for item in items:
        waiting.setdefault(item.anonymized_id, []).append(item)
    return [
        replace(record, review_item=None)
        if record.review_item and is_waiting(record.review_item, waiting)
        else record
        for record in records
    ]


def is_waiting(item: Row, waiting: Mapping[str, Sequence[ReviewItem]]) -> bool:
    """Return True if an open item is at least as urgent and has every reason of the new one."""
    return any(
        find_rank(open_item.priority) <= find_rank(item["priority"])
        and set(item["reasons"]) <= set(open_item.reasons)
        for open_item in waiting.get(item["anonymized_id"], ())
    )
