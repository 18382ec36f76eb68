"""Searches: whose RiskAssessments, and of which days."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID
from zoneinfo import ZoneInfo

from fastapi import Query
from sqlalchemy import select
from sqlalchemy.orm import Session

from feature_repo.fhir_values import REFERENCE
from feature_repo.pseudonyms import PSEUDONYM_PATTERN
from serving.database.tables import CrisisOverride, Prediction, ReviewItem
from serving.errors import UnusableError
from serving.fhir.elements import PSEUDONYM_SYSTEM
from serving.fhir.reading import read_instant
from serving.fhir.screening import EhrCaller
from serving.settings import Settings

MOST_RESULTS = 100

Reference = Annotated[str | None, Query(max_length=300)]
Dates = Annotated[list[str], Query(max_length=2)]

DATE = re.compile(r"(eq|ge|gt|le|lt)?(\d{4}-\d{2}-\d{2}(?:T[0-9:.]+(?:Z|[+-]\d{2}:\d{2})?)?)")
DAY_LENGTH = len("2026-01-31")


@dataclass(frozen=True)
class PatientSearch:
    """One person's predictions, from an instant on and before another; None: open."""

    anonymized_id: str
    since: datetime | None = None
    before: datetime | None = None


def read_patient(reference: str | None, caller: EhrCaller, settings: Settings) -> str:
    """Return the pseudonym of `Patient/<own id>`, `<own id>`, or the pseudonym's identifier.

    Clients with a tenant name people by their own ids only: a pseudonym could be anyone's. Raises
    UnusableError.
    """
    if not reference:
        raise UnusableError("subject or patient is needed")
    system, separator, value = reference.partition("|")
    if separator:
        is_pseudonym = system == PSEUDONYM_SYSTEM and PSEUDONYM_PATTERN.fullmatch(value)
        if not is_pseudonym or (caller.client and caller.client.tenant):
            raise UnusableError("subject: is no pseudonym that this caller may name")
        return value
    match = REFERENCE.search(reference)
    if match and match["kind"] != "Patient":
        raise UnusableError("subject: does not name a Patient")
    return caller.hash_patient(match["id"] if match else reference, settings)


def read_dates(dates: Sequence[str]) -> tuple[datetime | None, datetime | None]:
    """Return (since, before) of search parameters such as `ge2026-01-01`; days are UTC.

    Raises UnusableError.
    """
    since, before = None, None
    for text in dates:
        match = DATE.fullmatch(text)
        if match is None:
            raise UnusableError("date: is no FHIR date with a prefix eq, ge, gt, le or lt")
        begin, end = _read_span(match[2])
        prefix = match[1] or "eq"
        if prefix in ("eq", "ge", "gt"):
            since = end if prefix == "gt" else begin
        if prefix in ("eq", "le", "lt"):
            before = begin if prefix == "lt" else end
    return since, before


def _read_span(text: str) -> tuple[datetime, datetime]:
    try:
        begin = read_instant(text, ZoneInfo("UTC"))
    except ValueError:
        raise UnusableError("date: is no day of the calendar") from None
    length = timedelta(days=1) if len(text) == DAY_LENGTH else timedelta(seconds=1)
    return begin, begin + length


def search_predictions(session: Session, wanted: PatientSearch, limit: int) -> Sequence[Prediction]:
    """Return up to `limit` predictions of the search, latest first."""
    statement = select(Prediction).where(Prediction.anonymized_id == wanted.anonymized_id)
    if wanted.since is not None:
        statement = statement.where(Prediction.created_at >= wanted.since)
    if wanted.before is not None:
        statement = statement.where(Prediction.created_at < wanted.before)
    return session.scalars(statement.order_by(Prediction.created_at.desc()).limit(limit)).all()


def list_amended(session: Session, predictions: Sequence[UUID]) -> set[UUID]:
    """Return which of the predictions a clinician has put into another band since."""
    overridden = select(CrisisOverride.prediction_id).where(
        CrisisOverride.prediction_id.in_(predictions)
    )
    decided = select(ReviewItem.prediction_id).where(
        ReviewItem.prediction_id.in_(predictions), ReviewItem.new_band.is_not(None)
    )
    return set(session.scalars(overridden.union(decided)))
