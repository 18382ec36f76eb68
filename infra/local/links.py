"""Where to look once the stack is up: addresses, the login that each needs, the console's links."""

from datetime import timedelta

import httpx
from rich.console import Console
from rich.markup import escape

from infra.local.stack import MLFLOW_REVIEWER, LocalStack
from mlruns_config.pages import locate_models
from serving.auth.sign_in_tickets import make_sign_in_link
from serving.auth.tokens import issue_token
from serving.roles import Role
from serving.settings import load_settings

#: Who signs in by the links of a first run; each link works once, within an hour.
FIRST_USERS = {Role.CLINICIAN: "dr.example", Role.AUDITOR: "reviewer.example"}
CONSENT_YEARS = "2099-01-01T00:00:00Z"


def print_links(stack: LocalStack, console: Console) -> None:
    """Print where API, console, Prefect and MLflow are, with the logins that they need."""
    links = {
        **make_console_links(stack),
        "  one more link": "make console ROLE=clinician",
        "API and its documentation": f"{stack.url('api')}/docs",
        "flow runs (Prefect)": f"{stack.url('prefect')}/runs",
        "  login there": stack.environment["PREFECT_API_AUTH_STRING"],
        "models and lineage (MLflow)": locate_models(stack.url("mlflow")),
        "  reviewer's login there": (
            f"{MLFLOW_REVIEWER} {stack.mlflow_reviewer['MLFLOW_TRACKING_PASSWORD']}"
        ),
        "requests of an EHR": "serving/fhir/README.md",
        "a shell with everything set": "make shell",
    }
    console.print()
    _print_addresses(links, console)
    console.print("  [dim]a console link works once, within an hour[/]")


def print_console_links(stack: LocalStack, console: Console) -> None:
    """Print a link into the console for each first user, while there is no release yet."""
    console.print("\nthe console is open; its queue fills after the training:")
    _print_addresses(make_console_links(stack), console)


def _print_addresses(addresses: dict[str, str], console: Console) -> None:
    for what, where in addresses.items():
        console.print(f"  {what:28} [cyan]{escape(where)}[/]", soft_wrap=True)


def make_console_links(stack: LocalStack) -> dict[str, str]:
    """Return a one-time link into the console of each first user by its words."""
    settings = load_settings(stack.environment)
    return {
        f"console, role {role.value}": stack.url("api") + make_sign_in_link(settings, user, role)
        for role, user in FIRST_USERS.items()
    }


def record_example_consent(stack: LocalStack, patient_id: str) -> None:
    """Record the consent of the example person of /docs."""
    secret = stack.environment["JWT_SECRET_KEY"]
    token = issue_token(secret, "example", Role.CLINICIAN, timedelta(minutes=5))
    grant = {"data_types": ["survey"], "purposes": ["screening"], "expires_at": CONSENT_YEARS}
    response = httpx.post(
        f"{stack.url('api')}/consents",
        json={"patient_id": patient_id, "grants": [grant]},
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
        trust_env=False,
    )
    response.raise_for_status()
