"""GET /health for probes, GET /health/ready for people and load balancers."""

import time
from typing import Literal

import structlog
from fastapi import APIRouter, Response
from pydantic import BaseModel, Field
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from serving.dependencies import WorkerServices
from serving.services import Services

log = structlog.get_logger("serving.health")

router = APIRouter(tags=["operation"])


class Health(BaseModel):
    """Liveness: does not report dependencies, whose outage a restart would not end."""

    status: Literal["healthy", "degraded", "failed"] = Field(
        description="degraded: no release is loaded, or a newer one could not be. failed: a "
        "background thread has ended; only a restart brings it back."
    )
    timestamp: float = Field(description="Seconds since 1970.")
    stopped_threads: list[str] = Field(default=[], description="Background threads that ended.")


class ReleaseState(BaseModel):
    version: int | None
    problem: str | None = Field(description="Why the registry's Production is not loaded.")


class Readiness(BaseModel):
    status: Literal["ready", "not ready"]
    timestamp: float
    database: Literal["reachable", "unreachable"]
    release: ReleaseState
    degraded: list[str] = Field(description="What answers have to do without, or stays unseen.")


@router.get("/health", responses={503: {"model": Health}})
def get_health(services: WorkerServices, response: Response) -> Health:
    """Return 503 when a background thread of this worker has ended, so that it is restarted."""
    stopped = services.list_stopped_threads()
    if stopped:
        response.status_code = 503
        return Health(status="failed", timestamp=time.time(), stopped_threads=stopped)
    releases = services.screening.releases
    well = releases.current is not None and releases.problem is None
    return Health(status="healthy" if well else "degraded", timestamp=time.time())


@router.get("/health/ready", responses={503: {"model": Readiness}})
def get_readiness(services: WorkerServices, response: Response) -> Readiness:
    """Tell whether screenings can be answered: database reachable, a release loaded."""
    reachable = is_reachable(services.engine)
    release = describe_release_state(services)
    stopped = services.list_stopped_threads()
    ready = reachable and release.version is not None and not stopped
    response.status_code = 200 if ready else 503
    return Readiness(
        status="ready" if ready else "not ready",
        timestamp=time.time(),
        database="reachable" if reachable else "unreachable",
        release=release,
        degraded=[*list_degraded(services), *(f"thread stopped: {name}" for name in stopped)],
    )


def list_degraded(services: Services) -> list[str]:
    """Name what does not keep screenings from being answered, but from being complete."""
    releases = services.screening.releases
    checks = {
        "release: the loaded one is not what the registry names": releases.current is not None
        and releases.problem is not None,
        "candidate: it could not be taken up": releases.candidate_problem is not None,
        "feature store: the last read got no answer": services.screening.features.is_away,
        "caches: no notifications of changes, the database is read each time": not (
            services.accountability.changes.is_fresh
        ),
    }
    return [words for words, applies in checks.items() if applies]


def describe_release_state(services: Services) -> ReleaseState:
    current, problem = services.screening.releases.current, services.screening.releases.problem
    return ReleaseState(
        version=current.version if current else None, problem=problem.reason if problem else None
    )


def is_reachable(engine: Engine) -> bool:
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except SQLAlchemyError as error:
        log.warning("database unreachable", cause=type(error).__name__)
        return False
    return True
