"""Verifications of the audit trail as jobs: a long trail takes minutes, a request has seconds.

One job runs at a time, in a thread of the worker that started it. Its row has the result for every
worker. A job whose worker ended is lost: the lock that it held is free, and its row is unfinished.
"""

import threading
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import structlog
from sqlalchemy import Connection, Engine, func, select, update

from monitoring.logging import describe_error
from serving.audit.checkpoints import CheckpointStore
from serving.audit.signing import KeyRing
from serving.audit.verification import Finding, Verification, verify_trail
from serving.database.sessions import create_database_engine, open_session
from serving.database.tables import AuditVerification
from serving.errors import ConflictError, NotFoundError

log = structlog.get_logger("serving.audit")

#: Any number: the key of the advisory lock that a running job holds.
VERIFYING_LOCK = 7_236_451_902
#: How long a request waits for a job before it returns without the result.
WAIT_SECONDS = 5.0
POLL_SECONDS = 0.05
#: One statement of a job may take so long: the search for rows without a seal reads all.
STATEMENT_SECONDS = 600
#: Between taking the lock and writing its row a job has no id yet.
ROW_SECONDS = 2.0

NEWEST = select(AuditVerification).order_by(AuditVerification.started_at.desc()).limit(1)


@dataclass(frozen=True)
class VerificationJob:
    """A job, with its result once it has finished."""

    id: uuid.UUID
    started_at: datetime
    started_by: str
    finished_at: datetime | None
    result: Verification | None


class VerificationJobs:
    """Starts and finds the verifications of one database's trail."""

    def __init__(
        self, engine: Engine, database_url: str, store: CheckpointStore, keys: KeyRing
    ) -> None:
        self._engine, self._database_url = engine, database_url
        self._store, self._keys = store, keys

    def start(self, started_by: str) -> uuid.UUID:
        """Start a verification and return its id, or the id of the one that runs already.

        Raises ConflictError where another worker is just starting one.
        """
        own = create_database_engine(self._database_url, STATEMENT_SECONDS)
        connection = own.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            job_id = self._write_start(started_by) if _take_lock(connection) else None
        except BaseException:
            _let_go(connection)
            raise
        if job_id is None:
            _let_go(connection)
            return self._find_running()
        thread = threading.Thread(
            target=self._run, args=(job_id, connection), name="audit-verification", daemon=True
        )
        thread.start()
        return job_id

    def wait(self, job_id: uuid.UUID) -> VerificationJob:
        """Return a job once it has finished, or as it is after WAIT_SECONDS.

        Raises NotFoundError where no such job is known, and where its worker ended before it.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while (job := self._find(job_id)) is not None and job.finished_at is None:
            if time.monotonic() >= deadline:
                job = job if self._is_running() else None
                break
            time.sleep(POLL_SECONDS)
        if job is None:
            raise NotFoundError("no such verification, or its worker ended; start another one")
        return job

    def find_last(self) -> VerificationJob | None:
        """Return the newest job that has finished, None before the first."""
        finished = NEWEST.where(AuditVerification.finished_at.is_not(None))
        with open_session(self._engine) as session:
            row = session.scalar(finished)
            return None if row is None else _read_job(row)

    def _run(self, job_id: uuid.UUID, connection: Connection) -> None:
        try:
            verification = verify_trail(connection.engine, self._store, self._keys)
            self._write_result(job_id, verification)
        except Exception as error:  # a thread's error reaches no caller; the job counts as lost
            log.error("audit trail not verified", error=describe_error(error))
        finally:
            _let_go(connection)

    def _write_start(self, started_by: str) -> uuid.UUID:
        job_id = uuid.uuid4()
        with open_session(self._engine) as session:
            session.add(
                AuditVerification(id=job_id, started_at=datetime.now(UTC), started_by=started_by)
            )
        return job_id

    def _write_result(self, job_id: uuid.UUID, verification: Verification) -> None:
        finished = {"finished_at": datetime.now(UTC), "result": asdict(verification)}
        with open_session(self._engine) as session:
            session.execute(
                update(AuditVerification).where(AuditVerification.id == job_id).values(finished)
            )

    def _find(self, job_id: uuid.UUID) -> VerificationJob | None:
        with open_session(self._engine) as session:
            row = session.get(AuditVerification, job_id)
            return None if row is None else _read_job(row)

    def _find_running(self) -> uuid.UUID:
        deadline = time.monotonic() + ROW_SECONDS
        while time.monotonic() < deadline:
            with open_session(self._engine) as session:
                row = session.scalar(NEWEST)
                if row is not None and row.finished_at is None:
                    return row.id
            time.sleep(POLL_SECONDS)
        raise ConflictError("another verification is just starting or ending; try again")

    def _is_running(self) -> bool:
        with self._engine.connect() as connection:
            taken = select(func.pg_try_advisory_xact_lock(VERIFYING_LOCK))
            return not connection.scalar(taken)


def _take_lock(connection: Connection) -> bool:
    return bool(connection.scalar(select(func.pg_try_advisory_lock(VERIFYING_LOCK))))


def _let_go(connection: Connection) -> None:
    """End a job's connections, and with them its lock."""
    engine = connection.engine
    connection.close()
    engine.dispose()


def _read_job(row: AuditVerification) -> VerificationJob:
    result = None
    if row.result is not None:
        findings = [Finding(**finding) for finding in row.result["findings"]]
        result = Verification(**{**row.result, "findings": findings})
    return VerificationJob(row.id, row.started_at, row.started_by, row.finished_at, result)
