"""The passport of a prediction: everything that led to it and its outcome, on one page.

From a prediction id to release, members, runs, data, checks, code, inputs, consent, review and
viewings. While the registry is away its part is left out and listed in `missing`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from feature_repo.consent_terms import SCREENING
from mlruns_config.manifest import RELEASE_MODEL, MemberPin
from mlruns_config.pages import locate_run_alone, locate_version
from serving.audit.reading import ReadableInstant
from serving.audit.trail import PREDICTION_VIEW
from serving.consent.in_force import KnownConsent, read_consents, was_in_force
from serving.database.tables import (
    AuditRow,
    CrisisOverride,
    Prediction,
    PredictionLabel,
    ReviewItem,
    ShadowPrediction,
)
from serving.releases.lineage import RegisteredManifest
from serving.settings import Settings


@dataclass(frozen=True)
class Addresses:
    """Where people open MLflow, Prefect and the source; None: no link is made."""

    mlflow: str
    prefect: str | None = None
    source: str | None = None

    @classmethod
    def read(cls, settings: Settings) -> Self:
        mlflow = settings.mlflow_ui_url or settings.mlflow_tracking_uri
        return cls(mlflow.rstrip("/"), settings.prefect_ui_url, settings.source_url)


class PassportPart(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


Shown = TypeVar("Shown", bound=PassportPart)


class MemberOrigin(PassportPart):
    """One member by version: its estimate here, its run, and the hashes it was checked with."""

    name: str
    registered_model: str
    version: int
    run_id: str
    probability: float | None
    weight: float
    artifacts: dict[str, str]
    link: str


class ReleaseOrigin(PassportPart):
    """The release by version, and everything it was made of."""

    name: str
    version: int
    arm: str = Field(description="production, or candidate in a gradual rollout.")
    manifest_sha256: str
    manifest_is_as_registered: bool
    training_run_id: str
    members: list[MemberOrigin]
    data: dict[str, Any] = Field(description="Each landed table: version, rows, digest.")
    validation: dict[str, str] = Field(description="Run and result of the checks of these data.")
    feature_service: str
    feature_service_hash: str
    feature_tables: dict[str, Any]
    git_commit: str
    flow_run_id: str
    links: dict[str, str]


class ConsentInForce(PassportPart):
    granted_at: datetime
    expires_at: datetime
    withdrawn_at: datetime | None
    data_types: list[str]
    purposes: list[str]


class ReviewOutcome(PassportPart):
    id: UUID
    status: str
    priority: str
    reasons: list[str]
    due_at: datetime
    claimed_by: str | None
    decided_by: str | None
    decided_at: datetime | None
    decision: str | None
    new_band: str | None
    reason_code: str | None


class Override(PassportPart):
    created_at: datetime
    user_id: str


class ShadowWord(PassportPart):
    """The result of the other release of a rollout."""

    release_version: str
    arm: str
    risk_score: float | None
    probability: float | None
    needs_review: bool | None
    error: str | None


class Label(PassportPart):
    """The outcome of the prediction, or the band that the reviewer found right (review)."""

    kind: str
    source: str
    occurred: bool | None
    reviewed_band: str | None
    settled_at: datetime


class Viewing(PassportPart):
    created_at: ReadableInstant = Field(description="null: the row's time cannot be read.")
    user_id: str
    user_role: str
    action: str


class Passport(PassportPart):
    prediction_id: UUID
    anonymized_id: str
    created_at: datetime
    requested_by: str
    answer: dict[str, Any] = Field(
        description="As it was given, explanation included; without the estimate for roles that "
        "may not view predictions."
    )
    inputs: dict[str, Any] = Field(
        description="What the models saw, and the age of each view; answers to single items for "
        "clinicians and admins only."
    )
    release: ReleaseOrigin | None
    missing: list[str] = Field(description="Parts that could not be read now.")
    withheld: list[str] = Field(
        default=[], description="Parts that the reader's role may not see, with the permission."
    )
    consents: list[ConsentInForce] = Field(description="In force when the answer was given.")
    review: ReviewOutcome | None
    crisis_overrides: list[Override]
    shadow: ShadowWord | None
    labels: list[Label] = Field(description="Empty until data or a reviewer say more.")
    viewed: list[Viewing] = Field(description="Who opened the prediction since, oldest first.")


def issue_passport(
    session: Session,
    prediction: Prediction,
    registered: RegisteredManifest | None,
    addresses: Addresses,
) -> Passport:
    """Collect the passport of a prediction."""
    number = prediction.id
    missing = prediction.release_version is not None and registered is None
    return Passport(
        prediction_id=number,
        anonymized_id=prediction.anonymized_id,
        created_at=prediction.created_at,
        requested_by=prediction.user_id,
        answer=prediction.answer,
        inputs=prediction.inputs,
        release=trace_release(prediction, registered, addresses) if registered else None,
        missing=["release: the registry is away or no longer has it"] if missing else [],
        consents=list(map(_show_consent, find_consents(session, prediction))),
        review=_find_one(session, ReviewOutcome, ReviewItem, number),
        crisis_overrides=list_overrides(session, number),
        shadow=_find_one(session, ShadowWord, ShadowPrediction, number),
        labels=list_labels(session, number),
        viewed=list_viewings(session, prediction),
    )


def trace_release(
    prediction: Prediction, registered: RegisteredManifest, addresses: Addresses
) -> ReleaseOrigin:
    manifest = registered.manifest
    member_parts = {part["name"]: part for part in prediction.answer["release"]["members"]}
    lineage = manifest.lineage
    return ReleaseOrigin(
        name=prediction.answer["release"]["name"],
        version=registered.version,
        arm=prediction.arm,
        manifest_sha256=registered.sha256,
        manifest_is_as_registered=registered.is_as_registered,
        training_run_id=manifest.training_run_id,
        members=[
            trace_member(pin, member_parts.get(pin.name, {}), addresses.mlflow)
            for pin in manifest.members
        ],
        data=lineage.get("tables", {}),
        validation=lineage.get("validation", {}),
        feature_service=manifest.feature_service,
        feature_service_hash=str(lineage.get("feature_service_hash", "")),
        feature_tables=lineage.get("feature_tables", {}),
        git_commit=str(lineage.get("git_commit", "")),
        flow_run_id=str(lineage.get("flow_run_id", "")),
        links=list_links(registered, addresses),
    )


def trace_member(pin: MemberPin, member_part: dict[str, Any], ui: str) -> MemberOrigin:
    return MemberOrigin(
        name=pin.name,
        registered_model=pin.registered_model,
        version=pin.version,
        run_id=pin.run_id,
        probability=member_part.get("probability"),
        weight=member_part.get("weight", 0.0),
        artifacts=pin.artifacts,
        link=locate_version(pin.registered_model, pin.version, ui),
    )


def list_links(registered: RegisteredManifest, addresses: Addresses) -> dict[str, str]:
    """Return the pages that show the release, its training, validation, flow run and commit."""
    manifest, ui = registered.manifest, addresses.mlflow
    lineage = manifest.lineage
    runs = {
        "training": manifest.training_run_id,
        "validation": lineage.get("validation", {}).get("run_id"),
    }
    links = {
        "release": locate_version(RELEASE_MODEL, registered.version, ui),
        **{f"{name}_run": locate_run_alone(run, ui) for name, run in runs.items() if run},
    }
    if addresses.prefect and (run := lineage.get("flow_run_id")):
        links["flow_run"] = f"{addresses.prefect.rstrip('/')}/runs/flow-run/{run}"
    if addresses.source and (commit := lineage.get("git_commit")):
        links["commit"] = f"{addresses.source.rstrip('/')}/commit/{commit}"
    return links


def find_consents(session: Session, prediction: Prediction) -> Sequence[KnownConsent]:
    """Return the consents to screening that were in force when the answer was given."""
    consents = read_consents(session, prediction.anonymized_id)
    return [
        consent
        for consent in consents
        if SCREENING in consent.purposes and was_in_force(consent, prediction.created_at)
    ]


def list_overrides(session: Session, prediction_id: UUID) -> list[Override]:
    table = CrisisOverride
    statement = select(table).where(table.prediction_id == prediction_id).order_by(table.created_at)
    return [Override.model_validate(row) for row in session.scalars(statement)]


def list_labels(session: Session, prediction_id: UUID) -> list[Label]:
    table = PredictionLabel
    statement = select(table).where(table.prediction_id == prediction_id).order_by(table.kind)
    return [Label.model_validate(row) for row in session.scalars(statement)]


def list_viewings(session: Session, prediction: Prediction) -> list[Viewing]:
    """Return who opened the prediction, from the audit trail."""
    statement = (
        select(AuditRow)
        .where(AuditRow.anonymized_id == prediction.anonymized_id)
        .where(AuditRow.event_type == PREDICTION_VIEW)
        .where(AuditRow.details["prediction_id"].astext == str(prediction.id))
        .order_by(AuditRow.id)
    )
    return [Viewing.model_validate(row) for row in session.scalars(statement)]


def _show_consent(consent: KnownConsent) -> ConsentInForce:
    return ConsentInForce.model_validate(consent)


def _find_one(
    session: Session, shown: type[Shown], table: Any, prediction_id: UUID
) -> Shown | None:
    row = session.scalars(select(table).where(table.prediction_id == prediction_id)).first()
    return None if row is None else shown.model_validate(row)
