"""Registered EHR clients: who may call, with which keys, for whose people and from which pages.

A client stands in a JSON file (EHR_CLIENTS_FILE); the file's keys are the fields of `EhrClient`.
Nothing in a token adds a client or a key.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic import model_validator as validate_model

from serving.settings import MissingSettingError

CDS_SCOPE = "cds"
READ_ASSESSMENTS = "system/RiskAssessment.rs"
CREATE_RESPONSES = "system/QuestionnaireResponse.c"
READ_CONSENTS = "system/Consent.rs"
READ_PROVENANCE = "system/Provenance.rs"
SCOPES = (CDS_SCOPE, READ_ASSESSMENTS, CREATE_RESPONSES, READ_CONSENTS, READ_PROVENANCE)

Origin = Annotated[str, StringConstraints(pattern=r"^https?://[a-z0-9.-]+(:\d{1,5})?$")]


class EhrClient(BaseModel):
    """One client; `tenant` sets its people apart from those of every other client.

    With a tenant, the client's patient 17 is `tenant|17` here, so that equal ids of two
    organisations are two people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,35}$")]
    issuer: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    jwks: dict[str, Any] | None = None
    jwks_url: Annotated[str, StringConstraints(pattern=r"^https?://")] | None = None
    scopes: Annotated[frozenset[str], Field(min_length=1)]
    tenant: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = None
    origins: tuple[Origin, ...] = ()

    @validate_model(mode="after")
    def _check(self) -> Self:
        if (self.jwks is None) == (self.jwks_url is None):
            raise ValueError("either jwks or jwks_url is needed, not both")
        unknown = self.scopes - set(SCOPES)
        if unknown:
            raise ValueError(f"unknown scopes: {', '.join(sorted(unknown))}")
        return self

    @property
    def user_id(self) -> str:
        """Return the name in audit rows; no person's user id holds a colon."""
        return f"ehr:{self.id}"

    def name_person(self, patient_id: str) -> str:
        """Return the identifier that is hashed for a patient of this client."""
        return patient_id if self.tenant is None else f"{self.tenant}|{patient_id}"


def load_clients(path: str | None) -> tuple[EhrClient, ...]:
    """Return the clients of a file, none without one.

    Raises MissingSettingError naming each wrong field; keys and values are not repeated.
    """
    if path is None:
        return ()
    try:
        document = json.loads(Path(path).read_text())
        clients = TypeAdapter(tuple[EhrClient, ...]).validate_python(document)
    except (OSError, ValueError) as error:
        raise MissingSettingError(f"EHR_CLIENTS_FILE: {_describe(error)}") from None
    for name in ("id", "issuer"):
        if len({getattr(client, name) for client in clients}) < len(clients):
            raise MissingSettingError(f"EHR_CLIENTS_FILE: two clients have one {name}")
    return clients


def _describe(error: Exception) -> str:
    if isinstance(error, ValidationError):
        wrong = error.errors(include_input=False, include_url=False)
        return "; ".join(
            f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in wrong
        )
    return "no JSON" if isinstance(error, ValueError) else f"unreadable ({type(error).__name__})"
