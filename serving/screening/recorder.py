"""Writes answered screenings durably: one statement, one commit, shared by all that wait.

While one commit is on its way to the disk, the screenings answered meanwhile gather and go
with the next (group commit): at eight callers that is seven times as many as one each. A
screening's rows still stand or fall together; no caller gets an answer before the commit.
"""

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
import structlog
from sqlalchemy import Engine, Table
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from feature_repo.postgres_sessions import PreparedStatement, Rows
from serving.database.tables import AuditRow, Base, Prediction, ReviewItem
from serving.errors import DeadlineExceededError, MaybeRecordedError, RequestInFlightError

log = structlog.get_logger("serving.screening")

#: Screenings that may share one commit.
MAX_TOGETHER = 64
#: Past predictions an answer shows.
TREND_LENGTH = 10

#: What refuses rows that are there already, whichever table is written first.
TAKEN = ("predictions_pkey", "review_items_pkey")
#: The trigger that refuses a second answer under an idempotency key.
ANSWERED_ONCE = "idempotency_keys_answered_once"
#: The trigger that refuses rows of an individual who was erased after consent was checked.
NOT_ERASED = "predictions_not_erased"

OUTAGES = (OperationalError, InterfaceError, PoolTimeoutError)

Row = dict[str, Any]


@dataclass(frozen=True)
class PastPrediction:
    """An earlier answer about the same individual, as a point of its trend."""

    created_at: datetime
    risk_score: float
    risk_band: str
    probability: float | None


class ErasedMeanwhileError(Exception):
    """The individual was erased between the check of consent and the commit."""


@dataclass(frozen=True)
class Record:
    """All rows of one screening, by column; `deadline` in monotonic seconds."""

    prediction: Row
    review_item: Row | None
    audit_row: Row
    deadline: float
    #: The request's idempotency key with its owner, where it has one.
    idempotency: Row | None = None
    #: The crisis rule decided: these rows do not wait behind others.
    is_urgent: bool = False


@dataclass(frozen=True)
class _Waiting:
    record: Record
    done: Future[list[PastPrediction]] = field(default_factory=Future)


class Recorder:
    """Writes what is handed in, in order; `engine` commits each statement separately.

    Urgent records have a lane of their own, with its own thread and connection: a queue of
    others, or their statement that waits for a lock, does not delay them.
    """

    def __init__(self, engine: Engine, urgent_engine: Engine) -> None:
        self._lane = Lane("recorder", engine)
        self._urgent_lane = Lane("urgent-recorder", urgent_engine)

    @property
    def lanes(self) -> tuple["Lane", "Lane"]:
        return self._lane, self._urgent_lane

    def submit(self, record: Record) -> Future[list[PastPrediction]]:
        """Queue a screening's rows; the result, once they are committed, is its trend.

        A future that is cancelled before its turn leaves no rows. The future raises
        DeadlineExceededError when its turn came too late, ErasedMeanwhileError when the
        individual was erased in between, RequestInFlightError when another request answered
        under the same key, and what SQLAlchemy raises when the rows could not be written; nothing
        was recorded then. MaybeRecordedError when the connection broke before the reply.
        """
        lane = self._urgent_lane if record.is_urgent else self._lane
        return lane.submit(record)

    def close(self) -> None:
        """Write what is queued, then stop."""
        for lane in self.lanes:
            lane.close()


class Lane:
    """One queue, one thread and one connection of the recorder."""

    def __init__(self, name: str, engine: Engine) -> None:
        self._engine = engine
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name=name, daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        return self._thread.name

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, record: Record) -> Future[list[PastPrediction]]:
        waiting = _Waiting(record)
        self._queue.put(waiting)
        return waiting.done

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()
        self._engine.dispose()

    def _write_all(self) -> None:
        ends = False
        while not ends and (first := self._queue.get()) is not None:
            batch, ends = self._gather(first)
            try:
                self._write_in_time(batch)
            except Exception as error:  # without this thread no screening is recorded
                _fail([waiter for waiter in batch if not waiter.done.done()], error)

    def _gather(self, first: _Waiting) -> tuple[list[_Waiting], bool]:
        batch = [first]
        while len(batch) < MAX_TOGETHER:
            try:
                following = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
            if following is None:
                return batch, True
            batch.append(following)
        return batch, False

    def _write_in_time(self, batch: Sequence[_Waiting]) -> None:
        # From here on a future can no longer be cancelled: its rows are about to be written.
        wanted = [waiter for waiter in batch if waiter.done.set_running_or_notify_cancel()]
        now = time.monotonic()
        in_time = [waiter for waiter in wanted if waiter.record.deadline > now]
        for late in wanted:
            if late.record.deadline <= now:
                late.done.set_exception(
                    DeadlineExceededError("the screening timed out; send it again")
                )
        if in_time:
            self._write_together(in_time)

    def _write_together(self, batch: Sequence[_Waiting]) -> None:
        try:
            trends = write_records(self._engine, [waiter.record for waiter in batch])
        except (*OUTAGES, MaybeRecordedError) as error:
            _fail(batch, error)
        except Exception as error:  # the thread must outlive any surprise
            if len(batch) == 1:
                _fail(batch, _explain_refusal(error))
                return
            # An error in one screening is not the others': each is written on its own.
            for waiter in batch:
                self._write_together([waiter])
        else:
            for waiter, trend in zip(batch, trends, strict=True):
                waiter.done.set_result(trend)


def _explain_refusal(error: Exception) -> Exception:
    """Return what a refusal of the database means for a screening, else the error itself."""
    constraint = _find_constraint(error)
    if constraint == NOT_ERASED:
        return ErasedMeanwhileError()
    if constraint == ANSWERED_ONCE:
        return RequestInFlightError("the first request with this key was answered; send it again")
    return error


def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
    log.error("screenings not recorded", count=len(batch), cause=type(error).__name__)
    for waiter in batch:
        waiter.done.set_exception(error)


def write_records(engine: Engine, records: Sequence[Record]) -> list[list[PastPrediction]]:
    """Write the rows of all records in one transaction; return each one's trend.

    A connection that died may have committed or not: the rows are written again, and if their
    numbers are taken, by themselves, then it had (and nothing is known of the trend). Raises
    MaybeRecordedError when the second attempt does not reach the database either.
    """
    arguments = (
        _dump([record.prediction for record in records]),
        _dump([record.review_item for record in records if record.review_item is not None]),
        _dump([record.audit_row for record in records]),
        _dump([record.idempotency for record in records if record.idempotency is not None]),
        [record.prediction["anonymized_id"] for record in records],
    )
    try:
        points = _execute(engine, arguments)
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        points = _find_out(engine, arguments, records)
    trends: list[list[PastPrediction]] = [[] for _ in records]
    for position, *point in points:
        trends[position - 1].append(PastPrediction(*point))
    return trends


def _execute(engine: Engine, arguments: Sequence[Any]) -> Rows:
    # One statement is one transaction: the engine commits it.
    with engine.connect() as connection:
        return WRITE_AND_LOOK_BACK.execute(connection, *arguments)


def _find_out(engine: Engine, arguments: Sequence[Any], records: Sequence[Record]) -> Rows:
    if time.monotonic() > min(record.deadline for record in records):
        raise MaybeRecordedError
    try:
        return _execute_again(engine, arguments)
    except OUTAGES as error:
        raise MaybeRecordedError from error


def _execute_again(engine: Engine, arguments: Sequence[Any]) -> Rows:
    try:
        return _execute(engine, arguments)
    except IntegrityError as error:
        if _find_constraint(error) not in TAKEN:
            raise
        return []


def _find_constraint(error: Exception) -> str | None:
    """Return the name of the constraint that refused a statement, if one did."""
    diagnostics = getattr(getattr(error, "orig", None), "diag", None)
    return None if diagnostics is None else diagnostics.constraint_name


def get_table(mapped: type[Base]) -> Table:
    table = mapped.__table__
    assert isinstance(table, Table)
    return table


def _insert(table: Table, argument: str) -> str:
    names = ", ".join(list_columns(table))
    return (
        f"INSERT INTO {table.name} ({names}) SELECT {names} "
        f"FROM json_populate_recordset(NULL::{table.name}, {argument})"
    )


def list_columns(table: Table) -> list[str]:
    """Return the columns that are written; the database numbers rows itself."""
    return [column.name for column in table.columns if column.identity is None]


#: Every row of every record, and what was answered about the individuals before, which the
#: statement sees as it was when it began.
WRITE_AND_LOOK_BACK = PreparedStatement(
    f"""
WITH new_predictions AS ({_insert(get_table(Prediction), "$1")}),
new_review_items AS ({_insert(get_table(ReviewItem), "$2")}),
new_audit_rows AS ({_insert(get_table(AuditRow), "$3")}),
answered_keys AS (
    UPDATE idempotency_keys AS known
    SET prediction_id = given.prediction_id, answer = given.answer
    FROM json_populate_recordset(NULL::idempotency_keys, $4) AS given
    WHERE known.user_id = given.user_id AND known.key = given.key
)
SELECT asked.position, past.created_at, past.risk_score, past.risk_band, past.probability
FROM unnest($5) WITH ORDINALITY AS asked (anonymized_id, position),
LATERAL (
    SELECT created_at, risk_score, risk_band, probability FROM predictions
    WHERE predictions.anonymized_id = asked.anonymized_id
    ORDER BY created_at DESC LIMIT {TREND_LENGTH}
) AS past
ORDER BY asked.position, past.created_at
""",
    ("json", "json", "json", "json", "text[]"),
)


def _dump(rows: Sequence[Row]) -> str:
    return orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY).decode()
