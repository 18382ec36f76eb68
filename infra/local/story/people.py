"""The individuals of the story: who they are, what they answer, and how they are screened."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import polars as pl
from sqlalchemy import func, select

from feature_repo.consent_terms import SCREENING
from feature_repo.instruments import PHQ9
from feature_repo.pseudonyms import pseudonymise
from flows.cohort import simulate_cohort, write_drop
from flows.lake.consents import read_consented_types
from flows.lake.tables import scan_table
from flows.sources.contract import ITEM_COLUMNS
from infra.local.story.stage import Stage, StoryFailedError
from serving.auth.tokens import issue_token
from serving.database.sessions import open_session
from serving.database.tables import ShadowPrediction
from serving.roles import Role

YEARS = 3
#: Items in one request: a batch has the deadline of any request.
BATCH = 50
#: The last of PHQ-9's nine is of thoughts of self-harm; the story does not play with it.
BROKEN_ANSWERS = [*[PHQ9.max_answer] * (PHQ9.item_count - 1), 0]


@dataclass(frozen=True)
class Population:
    """Individuals of a drop, by pseudonym, and the PHQ-9 each answered last."""

    answers: dict[str, list[int]]

    def choose(self, count: int, seed: int) -> list[str]:
        return random.Random(seed).sample(sorted(self.answers), min(count, len(self.answers)))


def write_people(folder: Path, people: int, seed: int, begin: int, more_severe: float) -> set[str]:
    """Write a drop of simulated individuals until yesterday; return their identifiers."""
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    cohort = simulate_cohort(people, YEARS, yesterday, seed, begin, more_severe)
    write_drop(cohort, folder)
    return set(pl.read_parquet(folder / "people.parquet")["person_id"])


def find_population(stage: Stage, identifiers: set[str]) -> Population:
    """Return those who may be screened on their answers, with their last complete PHQ-9."""
    salt, lake = stage.stack.environment["ANONYMIZATION_SALT"], stage.stack.environment["LAKE_URL"]
    pseudonyms = {pseudonymise(identifier, salt) for identifier in identifiers}
    consented = read_consented_types(stage.engine, purposes=[SCREENING])
    items = list(ITEM_COLUMNS[: PHQ9.item_count])
    last = (
        scan_table(lake, "surveys")
        .filter(pl.col("instrument") == PHQ9.name)
        .drop_nulls(items)
        .sort("answered_at")
        .group_by("anonymized_id")
        .agg(pl.col(items).last())
        .collect()
        .join(consented.filter("survey"), on="anonymized_id", how="semi")
        .filter(pl.col("anonymized_id").is_in(list(pseudonyms)))
    )
    # Nobody of the story is in a crisis: it would decide instead of the releases.
    return Population(
        {row[0]: [*row[1:9], 0] for row in last.select("anonymized_id", *items).rows()}
    )


def screen(
    stage: Stage, population: Population, count: int, seed: int, broken: bool = False
) -> None:
    """Screen individuals through the API, each with the answers given last.

    `broken` sends the highest answer to every item but the last, as a broken app would.
    """
    chosen = population.choose(count, seed)
    items = [
        {
            "anonymized_id": person,
            "survey_data": {"phq9": BROKEN_ANSWERS if broken else population.answers[person]},
        }
        for person in chosen
    ]
    for number, begin in enumerate(range(0, len(items), BATCH)):
        _post(stage, items[begin : begin + BATCH], clinician=f"clinician-{number}")
        _let_shadows_catch_up(stage)


def _post(stage: Stage, items: Sequence[object], clinician: str) -> None:
    secret = stage.stack.environment["JWT_SECRET_KEY"]
    token = issue_token(secret, clinician, Role.CLINICIAN, timedelta(minutes=5))
    answer = httpx.post(
        f"{stage.stack.url('api')}/screen/batch",
        json={"items": list(items)},
        headers={"Authorization": f"Bearer {token}"},
        timeout=60,
        trust_env=False,
    )
    if answer.is_error or answer.json()["failed"]:
        raise StoryFailedError(f"a batch of screenings was not answered: {answer.text[:500]}")


def _let_shadows_catch_up(stage: Stage) -> None:
    """Wait until no shadow is written any more: what waits too long would be dropped."""
    before = -1
    while (now := _count_shadows(stage)) != before:
        before = now
        httpx.get(f"{stage.stack.url('api')}/health", timeout=10, trust_env=False)


def _count_shadows(stage: Stage) -> int:
    with open_session(stage.engine) as session:
        return session.scalar(select(func.count()).select_from(ShadowPrediction)) or 0
