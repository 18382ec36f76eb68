"""The person of a request: a pseudonym, or the clinic's own identifier, hashed on arrival."""

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from feature_repo.pseudonyms import PSEUDONYM_PATTERN, pseudonymise
from serving.http.strict_json import StrictBody
from serving.settings import Settings

PatientId = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128)]


class IndividualBody(StrictBody):
    """A body that names one individual, by either of two fields."""

    anonymized_id: (
        Annotated[str, StringConstraints(pattern=f"^{PSEUDONYM_PATTERN.pattern}$")] | None
    ) = None
    patient_id: PatientId | None = Field(
        default=None, description="Hashed on arrival; neither stored nor logged."
    )

    @model_validator(mode="after")
    def _name_one_individual(self) -> Self:
        if (self.anonymized_id is None) == (self.patient_id is None):
            raise ValueError("either anonymized_id or patient_id is needed, not both")
        return self


def resolve_individual(body: IndividualBody, settings: Settings) -> str:
    """Return the pseudonym; an identifier is hashed here and goes no further."""
    if body.anonymized_id is not None:
        return body.anonymized_id
    assert body.patient_id is not None  # the body's own validation
    return hash_identifier(body.patient_id, settings)


def hash_identifier(patient_id: str, settings: Settings) -> str:
    """Return the pseudonym of a clinic's own identifier, by the site's rule of case."""
    salt = settings.anonymization_salt.get_secret_value()
    return pseudonymise(patient_id, salt, folds_case=settings.folds_case_of_ids)
