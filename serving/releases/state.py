"""Which releases a worker answers with, what is seen of a candidate, and the latest changes."""

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from mlruns_config.guardrails import find_breaches, load_guardrails
from mlruns_config.ledger import promotion_ledger
from serving.releases.rollout_evidence import observe_candidate
from serving.releases.watcher import Candidate, ReleaseWatcher
from serving.scoring.loaded_release import Release

#: Entries of the promotion ledger that are shown.
LEDGER_LENGTH = 20


class MemberState(BaseModel):
    name: str
    registered_model: str
    version: int
    weight: float


class LoadedRelease(BaseModel):
    version: int
    loaded_at: datetime
    trained_by: str = Field(description="MLflow run.")
    members: list[MemberState]

    @classmethod
    def make(cls, release: Release) -> Self:
        members = [
            MemberState(
                name=name,
                registered_model=member.pin.registered_model,
                version=member.pin.version,
                weight=release.manifest.find_weight(name),
            )
            for name, member in release.members.items()
        ]
        return cls(
            version=release.version,
            loaded_at=release.loaded_at,
            trained_by=release.manifest.training_run_id,
            members=members,
        )


class CandidateState(BaseModel):
    release: LoadedRelease
    mode: Literal["shadow", "traffic"]
    share: float
    screenings: int = Field(description="That it scored, answering or in shadow.")
    measures: dict[str, float]
    breaches: list[str] = Field(description="Guardrails that would stop it now.")


class LedgerEntryPart(BaseModel):
    created_at: datetime
    version: int
    from_stage: str
    to_stage: str
    actor: str
    reason: str
    result: str


class ModelsAnswer(BaseModel):
    production: LoadedRelease | None
    candidate: CandidateState | None
    problems: list[str] = Field(description="Why what the registry names is not in use.")
    cached_versions: list[int] = Field(description="Releases this worker keeps in memory.")
    ledger: list[LedgerEntryPart] = Field(description="Latest changes, newest first.")


def describe_models(session: Session, releases: ReleaseWatcher) -> ModelsAnswer:
    """Return the state of a worker's releases."""
    problems = (releases.problem, releases.candidate_problem)
    return ModelsAnswer(
        production=LoadedRelease.make(releases.current) if releases.current else None,
        candidate=describe_candidate(session, releases.candidate),
        problems=[problem.reason for problem in problems if problem is not None],
        cached_versions=releases.cached_versions,
        ledger=list_ledger(session),
    )


def describe_candidate(session: Session, candidate: Candidate | None) -> CandidateState | None:
    if candidate is None:
        return None
    observed = observe_candidate(session, candidate.release.version)
    return CandidateState(
        release=LoadedRelease.make(candidate.release),
        mode=candidate.rollout.mode,
        share=candidate.rollout.share,
        screenings=observed.screenings,
        measures=observed.measures,
        breaches=find_breaches(load_guardrails(), observed),
    )


def list_ledger(session: Session) -> list[LedgerEntryPart]:
    table = promotion_ledger
    rows = session.execute(select(table).order_by(table.c.id.desc()).limit(LEDGER_LENGTH))
    return [LedgerEntryPart.model_validate(row, from_attributes=True) for row in rows]
