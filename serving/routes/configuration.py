"""GET /config: what this worker is configured with, secrets left out."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field, SecretStr

from serving.dependencies import ConfigurationReader, WorkerServices
from serving.http.problems import GUARDED, describe_problems
from serving.settings import Settings

router = APIRouter(tags=["service"])


class Configuration(BaseModel):
    settings: dict[str, Any] = Field(description="By environment variable.")
    secrets: dict[str, bool] = Field(description="Whether each is set; never what it is.")


@router.get("/config", responses=describe_problems(*GUARDED))
def get_configuration(_reader: ConfigurationReader, services: WorkerServices) -> Configuration:
    """Return the settings of this worker."""
    return describe_settings(services.settings)


def describe_settings(settings: Settings) -> Configuration:
    shown, secrets = {}, {}
    for name, field in Settings.model_fields.items():
        variable = str(field.validation_alias or name).upper()
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            secrets[variable] = bool(value.get_secret_value())
        else:
            shown[variable] = value
    return Configuration(settings=shown, secrets=secrets)
