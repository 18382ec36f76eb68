"""What screenings add to a training set, and what reviews take out of it.

Answers sent with a screening may never be delivered in a drop. With an outcome they are an index
date like any other, and their features come from the same point-in-time join. Where a reviewer
found the data wrong or the answers misunderstood, nothing is learnt from that index date; what
the reviewer thought of the band is no label.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

import polars as pl
from pydantic import ConfigDict, Field, ValidationError, create_model
from sqlalchemy import Engine, and_, select
from sqlalchemy.orm import aliased

from feature_repo.answer_features import (
    GAD7_ANSWERS,
    INDEX_DAY,
    PHQ9_ANSWERS,
    REPORTED_PHQ9_TOTAL,
    REQUEST_FIELDS,
    SECONDS_PER_DAY,
)
from feature_repo.feature_tables import EVENT_TIMESTAMP
from feature_repo.instruments import GAD7, PHQ9
from feature_repo.stored_views import JOIN_KEY
from flows.datasets.labels import INDEX_DATE, LABEL, WORSENED
from flows.datasets.screenings import OUTCOME, REVIEW, find_index_date, index_day
from flows.lake.consents import is_in_bucket
from flows.sources.contract import INSTANT, ColumnTypes
from serving.database.review_terms import OverrideReason
from serving.database.sessions import open_session
from serving.database.tables import Prediction, PredictionLabel

#: What a reviewer says of the inputs; other reasons are about the individual.
DOUBTS = (OverrideReason.DATA_WRONG_OR_OLD, OverrideReason.ANSWERS_MISUNDERSTOOD)

SCREENED: ColumnTypes = {
    JOIN_KEY: pl.String,
    INDEX_DATE: pl.Date,
    EVENT_TIMESTAMP: INSTANT,
    **dict.fromkeys(REQUEST_FIELDS, pl.Float64),
    LABEL: pl.Boolean,
    WORSENED: pl.Boolean,
}
_KEY = [JOIN_KEY, INDEX_DATE]
#: The last day of the calendar, in days since 1970.
LAST_INDEX_DAY = date.max.toordinal() - date(1970, 1, 1).toordinal()


def _define_number(most: float, default: Any = ...) -> Any:
    """Return a field of a number from 0 to `most`; with a default it may be missing."""
    number = Annotated[float, Field(ge=0, le=most)]
    return (number, ...) if default is ... else (number | None, default)


#: What was sent with a screening, as it must be stored: other numbers are no answers.
SentFields = create_model(
    "SentFields",
    __config__=ConfigDict(strict=True, allow_inf_nan=False),
    **dict.fromkeys(PHQ9_ANSWERS, _define_number(PHQ9.max_answer, None)),
    **dict.fromkeys(GAD7_ANSWERS, _define_number(GAD7.max_answer, None)),
    **{
        REPORTED_PHQ9_TOTAL: _define_number(PHQ9.max_total, None),
        INDEX_DAY: _define_number(LAST_INDEX_DAY),
    },
)


def read_screened_rows(engine: Engine, bucket: int) -> tuple[pl.DataFrame, int]:
    """Return the screenings of a bucket with a complete PHQ-9 and an outcome, as entity rows.

    Of several of one day the first, as of questionnaires in the lake. A worsening that was not
    labelled (labels of before it had a name) is null. The number counts screenings left out
    because what is stored of their request is no answers.
    """
    worsened = aliased(PredictionLabel)
    of_same = and_(worsened.prediction_id == Prediction.id, worsened.kind == WORSENED)
    statement = (
        select(
            Prediction.anonymized_id,
            Prediction.inputs["request"],
            PredictionLabel.occurred,
            worsened.occurred,
        )
        .join(PredictionLabel, PredictionLabel.prediction_id == Prediction.id)
        .outerjoin(worsened, of_same)
        .where(
            PredictionLabel.kind == OUTCOME,
            Prediction.inputs["request"].is_not(None),
            is_in_bucket(Prediction.anonymized_id, bucket),
        )
        .order_by(Prediction.anonymized_id, Prediction.created_at)
    )
    with open_session(engine) as session:
        found = session.execute(statement).all()
    rows, unreadable = [], 0
    for person, request, occurred, rise in found:
        try:
            sent = SentFields.model_validate(request).model_dump()
        except ValidationError:
            unreadable += 1
            continue
        if _has_phq9(sent):
            labels = {JOIN_KEY: person, LABEL: occurred, WORSENED: rise}
            rows.append(labels | _describe_request(sent))
    frame = pl.DataFrame(rows, schema=SCREENED)
    return frame.unique(_KEY, keep="first", maintain_order=True), unreadable


def _has_phq9(sent: dict[str, Any]) -> bool:
    total, items = sent[REPORTED_PHQ9_TOTAL], [sent[name] for name in PHQ9_ANSWERS]
    return total is not None or None not in items


def _describe_request(sent: dict[str, Any]) -> dict[str, Any]:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=sent[INDEX_DAY] * SECONDS_PER_DAY)
    answers = {name: sent[name] for name in REQUEST_FIELDS}
    return {INDEX_DATE: moment.date(), EVENT_TIMESTAMP: moment, **answers}


def add_screened_rows(
    entities: pl.DataFrame, screened: pl.DataFrame, consented: pl.DataFrame
) -> pl.DataFrame:
    """Return the entity frame with the screenings whose index date it does not hold yet.

    `consented` says who lets their answers be used for training.
    """
    wanted = screened.join(entities, on=_KEY, how="anti").join(
        consented.filter("survey"), on=JOIN_KEY, how="semi"
    )
    return pl.concat([entities, wanted.select(entities.columns).cast(entities.schema)]).sort(
        JOIN_KEY, EVENT_TIMESTAMP
    )


def read_doubted_dates(engine: Engine, bucket: int) -> pl.DataFrame:
    """Return (anonymized_id, index_date) of what a reviewer found to rest on wrong inputs."""
    statement = (
        select(Prediction.anonymized_id, index_day(), Prediction.created_at)
        .join(PredictionLabel, PredictionLabel.prediction_id == Prediction.id)
        .where(
            PredictionLabel.kind == REVIEW,
            PredictionLabel.reason_code.in_(DOUBTS),
            is_in_bucket(Prediction.anonymized_id, bucket),
        )
    )
    with open_session(engine) as session:
        rows = [
            (person, find_index_date(created_at, day))
            for person, day, created_at in session.execute(statement)
        ]
    schema: ColumnTypes = {JOIN_KEY: pl.String, INDEX_DATE: pl.Date}
    return pl.DataFrame(rows, schema=schema, orient="row").unique()
