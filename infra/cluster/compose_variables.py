"""Variables of infra/compose.yaml: ``python -m infra.cluster.compose_variables > infra/.env``."""

import re
import secrets
import sys
from pathlib import Path

from infra.cluster.secrets import make_key

COMPOSE = Path(__file__).resolve().parents[1] / "compose.yaml"


def list_variables() -> list[str]:
    """Return the names that the file asks for."""
    return sorted(set(re.findall(r"\$\{(\w+):\?\}", COMPOSE.read_text())))


def make_value(name: str) -> str:
    if name in ("JWT_SECRET_KEY", "ANONYMIZATION_SALT", "AUDIT_SIGNING_KEY"):
        return make_key()
    if name == "PREFECT_API_AUTH_STRING":
        return f"mhras:{secrets.token_urlsafe(24)}"
    return secrets.token_urlsafe(24)


if __name__ == "__main__":
    for variable in list_variables():
        sys.stdout.write(f"{variable}={make_value(variable)}\n")
