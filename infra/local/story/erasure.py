"""The last act: an individual is erased, from everywhere, with a receipt that can be checked."""

from datetime import timedelta
from typing import Any

import httpx
import polars as pl
from sqlalchemy import func, select

from feature_repo.catalogue import TABLED_VIEWS, describe_stored_views
from feature_repo.feature_tables import locate_feature_table
from feature_repo.online import open_reader
from feature_repo.stored_views import JOIN_KEY
from flows.erasure import ERASED_SINCE_TAG
from flows.lake.tables import scan_table
from flows.sources.contract import CONSENTS, TABLES
from infra.local.story.people import Population
from infra.local.story.stage import OPERATOR, Stage, StoryFailedError
from mlruns_config.registry.transitions import find_version
from serving.audit.signing import KeyRing
from serving.auth.tokens import issue_token
from serving.database.sessions import open_session
from serving.database.tables import Prediction
from serving.individuals.erasure import ERASED_TABLES
from serving.roles import Role


def erase_somebody(stage: Stage, population: Population, versions: list[int]) -> None:
    """Erase an individual who was trained on and screened, and look into every store."""
    person = choose_screened(stage, population)
    held = count_everywhere(stage, person)
    stage.tell("Before: " + ", ".join(f"{count} rows in {store}" for store, count in held.items()))
    stage.check(all(held.values()), "every store holds the individual")
    answer = request_erasure(stage, person)
    stage.run("erasure/erasure")
    left = count_everywhere(stage, person)
    stage.check(not any(left.values()), f"gone from {', '.join(left)}")
    receipt = answer["receipt"]
    stage.check(KeyRing([answer["public_key"]]).holds(receipt), "the receipt's signature verifies")
    forged = receipt | {"requested_by": "somebody else"}
    stage.check(not KeyRing([answer["public_key"]]).holds(forged), "a changed receipt's does not")
    for version in versions:
        model_version = find_version(stage.registry, version)
        assert model_version is not None
        marked = model_version.tags.get(ERASED_SINCE_TAG)
        stage.check(marked == "1", f"release {version} is marked: one it had seen is erased")
        stage.show(f"release {version} in MLflow", stage.link_release(version))


def choose_screened(stage: Stage, population: Population) -> str:
    """Return a screened person with rows in every table; raises StoryFailedError without one."""
    with open_session(stage.engine) as session:
        screened = set(session.scalars(select(Prediction.anonymized_id).distinct()))
    for person in sorted(screened & set(population.answers)):
        if all(count_lake(stage, person).values()):
            return person
    raise StoryFailedError("no screened person is in every table of the lake")


def request_erasure(stage: Stage, person: str) -> dict[str, Any]:
    """Return the erasure's receipt as the API answers; raises StoryFailedError."""
    secret = stage.stack.environment["JWT_SECRET_KEY"]
    token = issue_token(secret, OPERATOR.replace(" ", "-"), Role.ADMIN, timedelta(minutes=5))
    answer = httpx.delete(
        f"{stage.stack.url('api')}/individuals/{person}",
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
        trust_env=False,
    )
    if answer.is_error:
        raise StoryFailedError(f"the erasure was not accepted: {answer.text}")
    body: dict[str, Any] = answer.json()
    return body


def count_everywhere(stage: Stage, person: str) -> dict[str, int]:
    """Return how many rows about an individual each store holds."""
    return {
        "the database": count_database(stage, person),
        **{f"lake {name}": rows for name, rows in count_lake(stage, person).items()},
        "feature tables": count_features(person),
        "the online store": count_online(person),
    }


def count_database(stage: Stage, person: str) -> int:
    with open_session(stage.engine) as session:
        return sum(
            session.scalar(
                select(func.count())
                .select_from(table)
                .where(table.__table__.c.anonymized_id == person)
            )
            or 0
            for table in ERASED_TABLES
        )


def count_lake(stage: Stage, person: str) -> dict[str, int]:
    lake = stage.stack.environment["LAKE_URL"]
    return {
        name: int(
            scan_table(lake, name)
            .filter(pl.col(JOIN_KEY) == person)
            .select(pl.len())
            .collect()
            .item()
        )
        for name in TABLES
        if name not in (CONSENTS.name, "outcomes")  # the simulated cohort brings no outcomes
    }


def count_features(person: str) -> int:
    tables = [pl.scan_delta(locate_feature_table(view.name)) for view in TABLED_VIEWS]
    mine = [table.filter(pl.col(JOIN_KEY) == person).select(pl.len()) for table in tables]
    return sum(int(query.collect().item()) for query in mine)


def count_online(person: str) -> int:
    reader = open_reader(10)
    try:
        return len(reader.fetch(describe_stored_views(), [person])[person].moments)
    finally:
        reader.close()
