"""Data of the shape of Depresjon: 55 people, wearable days, one adjudicated outcome each."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from feature_repo.consent_terms import DATA_TYPES
from feature_repo.pseudonyms import BUCKET_COUNT
from flows.datasets.labels import LABEL, find_last_day
from flows.datasets.loading import NotEnoughLabelsError, label_bucket, require_enough
from tests.fixtures.quiet_ingestion import DAY_HEADER, KEY, ingest_quietly

PEOPLE, DAYS, ILL = 55, 14, 23
PERSONS = [f"person {n}" for n in range(PEOPLE)]
FIRST = date(2025, 1, 1)


@pytest.fixture(scope="module")
def lake_url(tmp_path_factory) -> str:
    drop: Path = tmp_path_factory.mktemp("study")
    steps = np.random.default_rng(1).integers(500, 15_000, (PEOPLE, DAYS))
    days = [
        f"{person},{FIRST + timedelta(days=day)},{steps[n, day]},420,1200"
        for n, person in enumerate(PERSONS)
        for day in range(DAYS)
    ]
    last = FIRST + timedelta(days=DAYS)
    outcomes = [f"{person},{last},{str(n < ILL).lower()}" for n, person in enumerate(PERSONS)]
    (drop / "wearable_days.csv").write_text("\n".join([DAY_HEADER, *days]))
    (drop / "outcomes.csv").write_text("\n".join(["person_id,index_date,outcome", *outcomes]))
    lake = str(tmp_path_factory.mktemp("state") / "lake")
    ingest_quietly(drop, lake, PERSONS)
    return lake


@pytest.fixture(scope="module")
def entities(lake_url) -> pl.DataFrame:
    """The index dates of the study, of people who consent to everything."""
    consented = pl.DataFrame(
        {"anonymized_id": [KEY.pseudonymise(person) for person in PERSONS]}
    ).with_columns(pl.lit(True).alias(name) for name in DATA_TYPES)
    until = find_last_day(lake_url)
    buckets = [label_bucket(lake_url, n, consented, until) for n in range(BUCKET_COUNT)]
    assert sum(bucket.adjudicated for bucket in buckets) == PEOPLE
    return pl.concat(bucket.entities for bucket in buckets)


def test_every_outcome_makes_an_index_date_without_any_phq9(entities):
    assert entities.height == entities["anonymized_id"].n_unique() == PEOPLE
    assert entities[LABEL].sum() == ILL


def test_a_training_refuses_it_in_one_sentence_that_names_the_shortage(entities):
    with pytest.raises(NotEnoughLabelsError) as caught:
        require_enough(entities)

    assert str(caught.value) == (
        "55 labelled index dates of 55 individuals who consent to training, 23 with the outcome; "
        "at least 400 and 60 are needed (a PHQ-9 followed by another within 90 days each, or an "
        "adjudicated outcome)"
    )
