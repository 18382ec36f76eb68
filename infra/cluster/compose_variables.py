"""Variables of infra/compose.yaml: ``python -m infra.cluster.compose_variables > infra/.env``."""

import re
import secrets
import sys
from pathlib import Path

from infra.cluster.secrets import make_key
from serving.audit.signing import Signer

COMPOSE = Path(__file__).resolve().parents[1] / "compose.yaml"


def list_variables() -> list[str]:
    """Return the names that the file requires."""
    return sorted(set(re.findall(r"\$\{(\w+):\?\}", COMPOSE.read_text())))


KEYS = ("JWT_SECRET_KEY", "ANONYMIZATION_SALT", "AUDIT_SIGNING_KEY", "RELEASE_SIGNING_KEY")


def make_values() -> dict[str, str]:
    """Return every variable with a new value; the public key of releases fits the private one."""
    values = {name: make_value(name) for name in list_variables()}
    public = Signer(values["RELEASE_SIGNING_KEY"]).public_key
    return values | {"RELEASE_PUBLIC_KEYS": public}


def make_value(name: str) -> str:
    if name in KEYS:
        return make_key()
    if name == "PREFECT_API_AUTH_STRING":
        return f"mhras:{secrets.token_urlsafe(24)}"
    return secrets.token_urlsafe(24)


if __name__ == "__main__":
    for variable, value in make_values().items():
        sys.stdout.write(f"{variable}={value}\n")
