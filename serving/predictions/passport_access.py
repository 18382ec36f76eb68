"""Which fields of a passport a role may read: the same as through every other endpoint.

Without VIEW_PREDICTIONS the estimate stays hidden, without VIEW_ANSWERS the item answers; the
passport names what was withheld and by which permission.
"""

from typing import Any

from sqlalchemy.orm import Session

from feature_repo.answer_features import ITEM_ANSWERS
from serving.audit.trail import EventTrail
from serving.database.tables import Prediction
from serving.predictions.passport import (
    Addresses,
    MemberOrigin,
    Passport,
    ReleaseOrigin,
    issue_passport,
)
from serving.predictions.viewing import record_viewing
from serving.releases.lineage import ManifestReader
from serving.roles import PERMISSIONS, Permission, Role

#: Fields of an answer that state how it came about and nothing about the person's health.
ACCOUNTABLE_FIELDS = (
    *("prediction_id", "anonymized_id", "created_at", "outcome", "rules_version", "needs_review"),
    *("degraded", "missing_data", "data_as_of", "intended_use"),
)


def view_passport(
    session: Session,
    trail: EventTrail,
    prediction: Prediction,
    manifests: ManifestReader,
    addresses: Addresses,
    role: Role,
) -> Passport:
    """Return the passport that a person opens, as far as the role may read it.

    The viewing is recorded; the passport does not hold it yet.
    """
    version = prediction.release_version
    registered = None if version is None else manifests.read(int(version))
    passport = issue_passport(session, prediction, registered, addresses)
    record_viewing(trail, prediction, "view_passport")
    return restrict_passport(passport, role)


def restrict_passport(passport: Passport, role: Role) -> Passport:
    """Return the passport with the fields that a role may read; `withheld` names the others."""
    allowed = PERMISSIONS[role]
    if Permission.VIEW_PREDICTIONS not in allowed:
        passport = _withhold_estimate(passport)
    elif Permission.VIEW_ANSWERS not in allowed:
        passport = _withhold_item_answers(passport)
    return passport


def _withhold_estimate(passport: Passport) -> Passport:
    kept = {name: passport.answer[name] for name in ACCOUNTABLE_FIELDS if name in passport.answer}
    hidden = ("answer: health estimate", "inputs", "release.members: probability", "shadow")
    return passport.model_copy(
        update={
            "answer": kept,
            "inputs": {},
            "release": passport.release and _withhold_probabilities(passport.release),
            "shadow": None,
            "labels": [],
            "withheld": _explain([*hidden, "labels"], Permission.VIEW_PREDICTIONS),
        }
    )


def _withhold_probabilities(release: ReleaseOrigin) -> ReleaseOrigin:
    members: list[MemberOrigin] = [
        member.model_copy(update={"probability": None}) for member in release.members
    ]
    answering = {"members": members}
    return release.model_copy(update=answering)


def _withhold_item_answers(passport: Passport) -> Passport:
    inputs = {name: _drop_item_answers(part) for name, part in passport.inputs.items()}
    withheld = _explain(["inputs: answers to single items"], Permission.VIEW_ANSWERS)
    return passport.model_copy(update={"inputs": inputs, "withheld": withheld})


def _drop_item_answers(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    return {name: value for name, value in part.items() if name not in ITEM_ANSWERS}


def _explain(names: list[str], permission: Permission) -> list[str]:
    return [f"{name}: needs the permission {permission}" for name in names]
