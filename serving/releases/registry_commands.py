"""Changes of the registry on behalf of an admin, through the registry's own command line.

`mlruns_config/registry/transitions.py` alone moves versions. It needs MLflow's client, which
would cost every worker 130 MB for a monthly task, so it runs as a process of its own.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from serving.errors import Principal, RegistryRefusedError
from serving.settings import Settings

#: Enough for MLflow's client to start and for one transition.
PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Change:
    """A command of `python -m mlruns_config.registry`, and who wants it why."""

    command: Sequence[str]
    principal: Principal
    reason: str


def change_registry(settings: Settings, change: Change) -> str:
    """Carry a change out; return the registry's answer.

    Raises RegistryRefusedError with its reason; the promotion ledger keeps both outcomes.
    """
    # As --name=value: a reason that begins with a dash is still a reason.
    words = [f"--actor={change.principal.user_id}", f"--reason={change.reason}"]
    program = [sys.executable, "-m", "mlruns_config.registry", *change.command, *words]
    environment = make_environment(settings)
    if environment is None:
        raise refuse(change, "this service may only read the registry")
    try:
        done = subprocess.run(
            program,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise refuse(change, "the registry did not carry it out in time") from None
    if done.returncode != 0:
        raise refuse(change, _find_reason(done.stderr))
    return done.stdout.strip()


def refuse(change: Change, detail: str) -> RegistryRefusedError:
    return RegistryRefusedError(detail, change.principal, change.command[0])


def make_environment(settings: Settings) -> dict[str, str] | None:
    """Return the command's environment: like ours, but logged in as who may change things.

    None where MLflow requires a login and only a reader's is set.
    """
    promoter = settings.mlflow_promoter_username, settings.mlflow_promoter_password
    if settings.mlflow_login is not None and None in promoter:
        return None
    user, password = promoter
    login = {
        "MLFLOW_TRACKING_USERNAME": user or "",
        "MLFLOW_TRACKING_PASSWORD": password.get_secret_value() if password else "",
    }
    return os.environ | {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "MLFLOW_TRACKING_URI": settings.mlflow_tracking_uri,
        # A person waits for the answer: MLflow's client would retry for minutes.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        **{name: value for name, value in login.items() if value},
    }


def _find_reason(errors: str) -> str:
    # A refusal is the last line; a traceback's last line may quote addresses.
    if "Traceback" in errors:
        return "the registry could not be reached"
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return lines[-1] if lines else "the registry gave no reason"
