"""Load as clinicians make it, judged by the deployment guide's targets.

    locust -f tests/load/locustfile.py --headless --users 200 --spawn-rate 20 --run-time 5m \
        --host https://api.staging.example.com

Needs MHRAS_LOAD_TOKENS (comma-separated tokens of clinicians) or JWT_SECRET_KEY, and
MHRAS_LOAD_INDIVIDUALS: a file with one pseudonym a line, all of whom consent to be screened. Exit
code 1 when a target is missed. The service limits each caller to 100 requests a minute, so every
simulated clinician has a user id.
"""

import os
import random
import uuid
from datetime import timedelta
from itertools import cycle
from pathlib import Path

from locust import HttpUser, between, events, task
from locust.env import Environment
from locust.stats import StatsEntry

#: Milliseconds by quantile; requests per second; share of failures.
LATENCY_TARGETS = {0.5: 3_000, 0.95: 5_000, 0.99: 7_000}
THROUGHPUT_TARGET = 100.0
ERROR_TARGET = 0.001
SCREENING = "/screen"


def find_missed_targets(screening: StatsEntry) -> list[str]:
    """Return each target that was missed, in words; without a request all of them were."""
    if not screening.num_requests:
        return ["no screening was answered"]
    missed = [
        f"p{quantile * 100:.0f} is {found} ms, target under {target} ms"
        for quantile, target in LATENCY_TARGETS.items()
        if (found := screening.get_response_time_percentile(quantile)) >= target
    ]
    if screening.fail_ratio >= ERROR_TARGET:
        missed.append(f"{screening.fail_ratio:.2%} errors, target under {ERROR_TARGET:.1%}")
    if screening.total_rps <= THROUGHPUT_TARGET:
        missed.append(f"{screening.total_rps:.0f} requests/s, target over {THROUGHPUT_TARGET:.0f}")
    return missed


@events.quitting.add_listener
def assess(environment: Environment, **_: object) -> None:
    """Print which targets were missed; they decide the exit code."""
    missed = find_missed_targets(environment.stats.get(SCREENING, "POST"))
    for target in missed:
        print(f"missed: {target}")
    if not missed:
        print("all targets are met")
    environment.process_exit_code = 1 if missed else 0


def make_tokens() -> "cycle[str] | None":
    given = [token for token in os.environ.get("MHRAS_LOAD_TOKENS", "").split(",") if token]
    return cycle(given) if given else None


TOKENS = make_tokens()


def choose_token() -> str:
    if TOKENS is not None:
        return next(TOKENS)
    # Only where the service issues tokens itself.
    from serving.auth.tokens import issue_token
    from serving.roles import Role

    user = f"load-{uuid.uuid4().hex[:8]}"
    return issue_token(os.environ["JWT_SECRET_KEY"], user, Role.CLINICIAN, timedelta(minutes=60))


def read_individuals() -> list[str]:
    path = os.environ.get("MHRAS_LOAD_INDIVIDUALS")
    if not path:
        raise SystemExit("MHRAS_LOAD_INDIVIDUALS is not set: a file with a pseudonym a line")
    return Path(path).read_text().split()


class Clinician(HttpUser):
    """Screens somebody every one to three seconds, and now and then looks at the queue."""

    wait_time = between(1, 3)

    def on_start(self) -> None:
        self.individuals = read_individuals()
        self.client.headers["Authorization"] = f"Bearer {choose_token()}"

    @task(9)
    def screen(self) -> None:
        answers = [random.choice((0, 0, 1, 1, 2, 3)) for _ in range(8)]
        body = {
            "anonymized_id": random.choice(self.individuals),
            # Item 9 at 0: the crisis rule would send everybody to review.
            "survey_data": {"phq9": [*answers, 0]},
        }
        self.client.post(SCREENING, json=body)

    @task(1)
    def look_at_queue(self) -> None:
        self.client.get("/reviews")
