"""Is a deployment alive, end to end? One screening from consent to erasure, as a caller sees it.

    python tests/smoke_tests.py --env=production --api-url=https://api.mhras.example.com

Tokens come from MHRAS_SMOKE_CLINICIAN_TOKEN, MHRAS_SMOKE_AUDITOR_TOKEN, MHRAS_SMOKE_ADMIN_TOKEN;
where JWT_SECRET_KEY is set instead, they are made here. The individual is made up for the run and
erased at its end, also when a check fails; what stays is in the audit trail. Exit code 1: a check
failed.
"""

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

ROLES = ("clinician", "auditor", "admin")
#: What is withdrawn or erased binds in every worker within a second.
EFFECTIVE_SECONDS = 1
#: A verification of a trail of ten million rows.
VERIFICATION_SECONDS = 1800
#: The guide's target for the 99th percentile of a screening.
SLOWEST_SCREENING_SECONDS = 7
ANSWERS = {"phq9": [1, 1, 0, 1, 0, 1, 0, 0, 0], "gad7": [0, 1, 0, 1, 0, 0, 0]}


class Env(StrEnum):
    DEVELOPMENT = "development"
    STAGING = "staging"
    PRODUCTION = "production"


class CheckFailedError(AssertionError):
    """What a check expected and did not find."""


@dataclass
class Smoke:
    """A run: the API, who asks it, and the individual made up for it."""

    client: httpx.Client
    env: Env
    tokens: dict[str, str]
    individual: str = field(default_factory=lambda: secrets.token_hex(16))
    prediction_id: str | None = None

    def ask(self, role: str | None, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.tokens[role]}"} if role else {}
        return self.client.request(method, path, headers=headers, **options)

    def expect(self, status: int, role: str | None, method: str, path: str, **options: Any) -> Any:
        """Return the JSON of an answer, or raise CheckFailedError with its status."""
        answer = self.ask(role, method, path, **options)
        if answer.status_code != status:
            place = path.replace(self.individual, "{id}")
            raise CheckFailedError(f"{method} {place} answered {answer.status_code}, not {status}")
        return answer.json()


def check_health(smoke: Smoke) -> str:
    health = smoke.expect(200, None, "GET", "/health")
    require(health["status"] == "healthy", f"status is {health['status']}")
    require(abs(health["timestamp"] - time.time()) < 60, "the server's clock is off by a minute")
    return "healthy"


def check_readiness(smoke: Smoke) -> str:
    ready = smoke.expect(200, None, "GET", "/health/ready")
    return f"database reachable, release {ready['release']['version']} loaded"


def check_encryption(smoke: Smoke) -> str:
    if smoke.env is Env.DEVELOPMENT:
        return "not asked of development"
    require(smoke.client.base_url.scheme == "https", "the API is not asked over https")
    header = smoke.ask(None, "GET", "/health").headers.get("Strict-Transport-Security", "")
    require("max-age=" in header, "no Strict-Transport-Security")
    return "https with HSTS"


def check_configuration(smoke: Smoke) -> str:
    """The deployment must be the one it is taken for, before anything is written to it."""
    found = smoke.expect(200, "admin", "GET", "/config")
    stated = find_value(found, "MHRAS_ENV")
    require(stated == smoke.env, f"the API says MHRAS_ENV={stated}")
    return f"MHRAS_ENV={stated}"


def check_refusals(smoke: Smoke) -> str:
    smoke.expect(401, None, "GET", "/")
    smoke.expect(401, None, "POST", "/screen", json=make_screening(smoke))
    smoke.expect(403, "auditor", "POST", "/screen", json=make_screening(smoke))
    smoke.expect(403, "clinician", "GET", "/audit")
    return "no token 401, wrong role 403"


def check_login(smoke: Smoke) -> str:
    for role in ROLES:
        smoke.expect(200, role, "GET", "/")
    return ", ".join(ROLES)


def check_consent(smoke: Smoke) -> str:
    smoke.expect(403, "clinician", "POST", "/screen", json=make_screening(smoke))
    expires = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    grant = {"data_types": ["survey"], "purposes": ["screening"], "expires_at": expires}
    path = f"/consents/{smoke.individual}"
    smoke.expect(200, "clinician", "PUT", path, json={"grants": [grant]})
    return "refused without, recorded"


def check_screening(smoke: Smoke) -> str:
    begun = time.monotonic()
    answer = smoke.expect(200, "clinician", "POST", "/screen", json=make_screening(smoke))
    seconds = time.monotonic() - begun
    smoke.prediction_id = answer["prediction_id"]
    require(0 <= answer["risk_score"] <= 100, "the score is not within 0 and 100")
    require(answer["release"]["version"] is not None, "no release answered")
    require(seconds < SLOWEST_SCREENING_SECONDS, f"took {seconds:.1f} s")
    return f"band {answer['risk_band']} in {seconds * 1000:.0f} ms"


def check_crisis_rule(smoke: Smoke) -> str:
    """Item 9 above 0 puts a person on top, whatever the models say."""
    body = make_screening(smoke) | {"survey_data": ANSWERS | {"phq9": [0] * 8 + [1]}}
    answer = smoke.expect(200, "clinician", "POST", "/screen", json=body)
    require(answer["risk_band"] == "critical", f"band is {answer['risk_band']}")
    require(answer["needs_review"] is True, "no review")
    return "critical, to review"


def check_record(smoke: Smoke) -> str:
    kept = smoke.expect(200, "clinician", "GET", f"/predictions/{smoke.prediction_id}")
    require(kept["answer"]["prediction_id"] == smoke.prediction_id, "another prediction came back")
    return "prediction found again"


def check_metrics(smoke: Smoke) -> str:
    """Metrics are refused at the way in (TLS); the API's port shows them, or METRICS_PORT does."""
    if smoke.client.base_url.scheme == "https":
        status = smoke.ask(None, "GET", "/metrics").status_code
        require(status in (403, 404), f"/metrics answers {status} from outside")
        return "refused from outside"
    exposed = smoke.ask(None, "GET", "/metrics")
    if exposed.status_code == 404:
        return "on a port of its own"
    text = exposed.text
    for name in ("mhras_http_requests_total", "mhras_screenings_total", "mhras_release_info"):
        require(name in text, f"{name} is not exposed")
    require(smoke.individual not in text, "a pseudonym is in the metrics")
    return "exposed"


def check_audit(smoke: Smoke) -> str:
    about = {"anonymized_id": smoke.individual}
    page = smoke.expect(200, "auditor", "GET", "/audit", params=about)
    results = {row["result"] for row in page["items"]}
    require({"success", "failure"} <= results, f"the trail has {sorted(results)} of it only")
    return f"{len(page['items'])} rows, refusals included"


def check_trail(smoke: Smoke) -> str:
    answer = smoke.ask("auditor", "GET", "/audit/verify")
    deadline = time.monotonic() + VERIFICATION_SECONDS
    while answer.status_code == 202 and time.monotonic() < deadline:
        answer = smoke.ask("auditor", "GET", answer.headers["Location"])
    require(answer.status_code == 200, f"/audit/verify answered {answer.status_code}, not 200")
    require(answer.json()["intact"] is True, "the audit trail is not intact")
    return "intact"


CHECKS: tuple[Callable[[Smoke], str], ...] = (
    *(check_health, check_readiness, check_encryption, check_login, check_configuration),
    *(check_refusals, check_consent, check_screening, check_crisis_rule, check_record),
    *(check_metrics, check_audit, check_trail),
)


def clean_up(smoke: Smoke) -> str:
    """Erase the individual that was made up; its receipt is not kept."""
    smoke.expect(200, "admin", "DELETE", f"/individuals/{smoke.individual}")
    time.sleep(EFFECTIVE_SECONDS)
    smoke.expect(403, "clinician", "POST", "/screen", json=make_screening(smoke))
    return "erased, and refused since"


def make_screening(smoke: Smoke) -> dict[str, Any]:
    return {"anonymized_id": smoke.individual, "survey_data": ANSWERS}


def find_value(settings: Any, name: str) -> Any:
    """Return a setting of GET /config, by the name of its variable or its field."""
    known = {str(key).lower().removeprefix("mhras_"): value for key, value in settings.items()}
    nested = known.get("settings") or known
    lowered = {str(key).lower().removeprefix("mhras_"): value for key, value in nested.items()}
    return lowered.get(name.lower().removeprefix("mhras_"))


def require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise CheckFailedError(otherwise)


def read_tokens(environment: dict[str, str]) -> dict[str, str]:
    """Return a token for each role, given or made; raises typer.BadParameter naming what lacks."""
    given = {role: environment.get(f"MHRAS_SMOKE_{role.upper()}_TOKEN", "") for role in ROLES}
    missing = [role for role, token in given.items() if not token]
    secret = environment.get("JWT_SECRET_KEY")
    if missing and not secret:
        names = ", ".join(f"MHRAS_SMOKE_{role.upper()}_TOKEN" for role in missing)
        raise typer.BadParameter(f"set {names}, or JWT_SECRET_KEY")
    if missing and secret:
        # Here, not at the top: with tokens given, httpx and typer are all this file needs. The
        # folder of this file holds the tests of serving, which would be found first.
        sys.path = [place for place in sys.path if Path(place).resolve() != Path(__file__).parent]
        from serving.auth.tokens import issue_token
        from serving.roles import Role

        lifetime = timedelta(minutes=10)
        given |= {r: issue_token(secret, "smoke", Role(r), lifetime) for r in missing}
    return given


@contextmanager
def report(name: str, failures: list[str]) -> Iterator[list[str]]:
    said: list[str] = []
    label = name.removeprefix("check_").replace("_", " ")
    try:
        yield said
    except (CheckFailedError, httpx.HTTPError, KeyError, ValueError) as error:
        # A KeyError or ValueError is an answer of another form than agreed.
        failures.append(label)
        sys.stdout.write(f"✗ {label:14} {type(error).__name__}: {error}\n")
    else:
        sys.stdout.write(f"✓ {label:14} {said[0]}\n")


def run_checks(smoke: Smoke) -> list[str]:
    """Run every check, then clean up; return the names of those that failed."""
    failures: list[str] = []
    for check in (*CHECKS, clean_up):
        with report(check.__name__, failures) as said:
            said.append(check(smoke))
    return failures


def main(
    env: Annotated[Env, typer.Option(help="What the deployment is taken for.")],
    api_url: Annotated[str, typer.Option(help="Where it answers.")],
) -> None:
    """Check a deployment; exit code 1 when anything is not as it should be."""
    tokens = read_tokens(dict(os.environ))
    with httpx.Client(base_url=api_url, timeout=30) as client:
        failures = run_checks(Smoke(client, env, tokens))
    sys.stdout.write(f"{len(CHECKS) + 1 - len(failures)} passed, {len(failures)} failed\n")
    raise typer.Exit(1 if failures else 0)


if __name__ == "__main__":
    typer.run(main)
