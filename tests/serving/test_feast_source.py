"""The real reader: Feast's registry and online store in PostgreSQL, one stored individual."""

import math
import os
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, text

from serving.features import FeaturesUnavailableError, Query

SOMEONE = "0123456789abcdef0123456789abcdef"
ALL = frozenset({"survey", "wearable", "emr"})
NOW = datetime.now(UTC)


def make_query(**changes):
    values = {"phq9": None, "gad7": None, "phq9_total": None, "data_types": ALL}
    return Query(index_time=NOW, **(values | changes))


@pytest.fixture(scope="module")
def feast_environment(postgres):
    database = f"feast_{uuid.uuid4().hex[:8]}"
    postgres.create_databases([database])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEAST_REGISTRY_URL", postgres.url(database))
        patch.setenv("FEAST_ONLINE_HOST", "127.0.0.1")
        patch.setenv("FEAST_ONLINE_PORT", str(postgres.port))
        patch.setenv("FEAST_ONLINE_DATABASE", database)
        patch.setenv("FEAST_ONLINE_USER", "postgres")
        patch.setenv("FEAST_ONLINE_PASSWORD", postgres.password)
        patch.setenv("FEAST_ONLINE_SSLMODE", "disable")
        yield


@pytest.fixture(scope="module")
def engine_of_feast(feast_environment):
    engine = create_engine(os.environ["FEAST_REGISTRY_URL"])
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def source(feast_environment):
    import pandas as pd
    from feast import FeatureStore

    from feature_repo import definitions
    from feature_repo.demographics import demographics
    from feature_repo.online import REPOSITORY
    from serving.feast_source import make_feast_source

    store = FeatureStore(repo_path=str(REPOSITORY))
    store.apply([getattr(definitions, name) for name in definitions.__all__])
    row = {feature.name: [1.0] for feature in demographics.features} | {"birth_year": [1980.0]}
    moments = {"event_timestamp": [NOW - timedelta(days=1)], "created_timestamp": [NOW]}
    frame = pd.DataFrame({"anonymized_id": [SOMEONE], **row, **moments})
    store.write_to_online_store("demographics", frame)
    return make_feast_source()


def test_an_unconfigured_store_is_unavailable_and_the_answers_still_count(monkeypatch):
    from serving.feast_source import FeastSource

    monkeypatch.delenv("FEAST_REGISTRY_URL", raising=False)
    source = FeastSource()
    with pytest.raises(FeaturesUnavailableError):
        source.read(SOMEONE, make_query())
    assert source.read_answers_alone(make_query(phq9=[1] * 9))["phq9_total"] == 9


def test_stored_values_and_answers_are_read_together(source):
    found = source.read(SOMEONE, make_query(phq9=[2] * 9))

    assert found.is_known is True
    assert found.values["age"] == pytest.approx(NOW.year - 1980, abs=1)
    assert found.values["phq9_total"] == 18


def test_an_unknown_individual_has_nothing_but_the_answers(source):
    found = source.read("f" * 32, make_query(phq9=[2] * 9))

    assert found.is_known is False
    assert math.isnan(found.values["age"])
    assert found.values["phq9_total"] == 18


def test_a_restart_of_the_store_degrades_one_read_not_all_later_ones(source, engine_of_feast):
    source.read(SOMEONE, make_query())
    with engine_of_feast.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )

    with pytest.raises(FeaturesUnavailableError):
        source.read(SOMEONE, make_query())
    assert source.read(SOMEONE, make_query()).is_known is True
