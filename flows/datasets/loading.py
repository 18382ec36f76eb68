"""What a training learns from: the lake's labelled index dates with everything known at each."""

from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import polars as pl
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from sqlalchemy import Engine

from feature_repo.catalogue import list_model_inputs
from feature_repo.consent_terms import DATA_TYPES
from feature_repo.feast_library import FeatureStore
from feature_repo.online_store import REPOSITORY
from feature_repo.pseudonyms import BUCKET_COUNT
from feature_repo.stored_views import JOIN_KEY
from feature_repo.weekly_sequence import SEQUENCE_CHANNELS
from flows.datasets.labels import (
    INDEX_DATE,
    LABEL,
    WORSENED,
    count_unlabelled,
    derive_labels,
    find_last_day,
)
from flows.datasets.rows import Labels, Matrix, ModelRows, concatenate_rows
from flows.datasets.screened_rows import (
    add_screened_rows,
    read_doubted_dates,
    read_screened_rows,
)
from flows.datasets.training_set import (
    Split,
    TrainingSet,
    collect_futures,
    join_features,
    make_entity_frame,
    split_rows,
    stack_rows,
)
from flows.lake.consents import read_consented_types
from flows.lake.tables import scan_table
from flows.runtime.database import open_database
from flows.runtime.retries import IO_RETRIES

#: Rows joined with their features at a time: what bounds memory.
ROWS_PER_JOIN = 25_000
#: Fewer say nothing: published models with fewer outcomes are the ones that do not replicate.
MIN_ROWS = 400
MIN_OUTCOMES = 60
#: Count of a bucket -> why these could not be used.
EXCLUDED = {
    "too_late": "PHQ-9 whose 90 days are not over",
    "unfollowed": "PHQ-9 without another within 90 days",
    "withheld": "adjudicated outcomes without consent to training",
}
UNREADABLE = "screenings of which no answers are stored that could be sent"
DOUBTED = "index dates that a reviewer found to rest on wrong inputs"
#: Of either outcome in each part of the split: with fewer a part can be neither learnt nor told.
MIN_OF_A_PART = 3


class NotEnoughLabelsError(RuntimeError):
    """The data hold too few labelled index dates to train and evaluate a release."""


def _may_pass(_task: Any, _run: Any, state: Any) -> bool:
    return not isinstance(state.result(raise_on_failure=False), NotEnoughLabelsError)


@task(cache_policy=NO_CACHE, retry_condition_fn=_may_pass, **IO_RETRIES)
def load_training_set(lake_url: str) -> TrainingSet:
    """Label the lake's index dates and join the features known at each of them."""
    with open_database() as engine:
        consented = read_consented_types(engine, purposes=["training"])
        collected = collect_entities(engine, lake_url, consented)
    entities = collected.entities
    require_enough(entities)
    frame, rows = join_rows(FeatureStore(repo_path=str(REPOSITORY)), entities, consented)
    split = split_rows(frame[JOIN_KEY], frame[INDEX_DATE], frame[LABEL].to_numpy())
    require_both_outcomes(split, frame[LABEL].to_numpy())
    get_run_logger().info("%d labelled rows, %d held out", frame.height, split.held_out.sum())
    return TrainingSet(
        frame,
        rows,
        collected.futures,
        split,
        collected.screened,
        collected.doubted,
        collected.adjudicated,
        collected.excluded,
    )


def join_rows(
    store: FeatureStore, entities: pl.DataFrame, consented: pl.DataFrame
) -> tuple[pl.DataFrame, ModelRows]:
    """Return the labels with age, and the model inputs, of the entity frame's rows, in order."""
    joined = [
        blank_unconsented(join_features(store, part), consented)
        for part in entities.iter_slices(ROWS_PER_JOIN)
    ]
    frame = pl.concat(part.select(JOIN_KEY, INDEX_DATE, LABEL, WORSENED, "age") for part in joined)
    return frame, concatenate_rows([stack_rows(part) for part in joined])


@dataclass(frozen=True)
class LabelledBucket:
    """The entity frame of a bucket's landed rows, its surveys, and what could not be labelled.

    `withheld` outcomes lack consent; of the PHQ-9 `too_late` are those whose horizon is not over,
    `unfollowed` those without a later one in it.
    """

    entities: pl.DataFrame
    surveys: pl.DataFrame
    withheld: int
    too_late: int
    unfollowed: int
    adjudicated: int


def label_bucket(
    lake_url: str, bucket: int, consented: pl.DataFrame, known_until: date
) -> LabelledBucket:
    """Label the index dates of a bucket of a lake, as far as people consent."""
    surveys, events, outcomes = (
        scan_table(lake_url, name, bucket).collect()
        for name in ("surveys", "emr_events", "outcomes")
    )
    asked = surveys.join(consented.filter("survey"), on=JOIN_KEY, how="semi")
    seen = events.join(consented.filter("emr"), on=JOIN_KEY, how="semi")
    adjudicated = outcomes.join(
        consented.filter(pl.any_horizontal(DATA_TYPES)), on=JOIN_KEY, how="semi"
    )
    labels = derive_labels(asked, seen, adjudicated, known_until)
    too_late, unfollowed = count_unlabelled(asked, labels, known_until)
    return LabelledBucket(
        entities=make_entity_frame(labels, asked),
        surveys=asked,
        withheld=outcomes.height - adjudicated.height,
        too_late=too_late,
        unfollowed=unfollowed,
        adjudicated=labels.join(adjudicated, on=[JOIN_KEY, INDEX_DATE], how="semi").height,
    )


@dataclass(frozen=True)
class Collected:
    """The entity frame and the futures of its rows, in the order Feast gives back.

    `screened` rows come from screenings alone; `doubted` ones are left out; `excluded` says by
    reason what else could not be used.
    """

    entities: pl.DataFrame
    futures: Matrix
    screened: int
    doubted: int
    adjudicated: int
    excluded: dict[str, int]


def collect_entities(engine: Engine, lake_url: str, consented: pl.DataFrame) -> Collected:
    """Label the index dates of the lake and of screenings, a bucket at a time."""
    known_until = find_last_day(lake_url)
    frames, futures = [], []
    screened = doubted = adjudicated = unreadable = 0
    excluded = dict.fromkeys(EXCLUDED.values(), 0)
    for bucket in range(BUCKET_COUNT):
        labelled = label_bucket(lake_url, bucket, consented, known_until)
        landed = labelled.entities
        sent, odd = read_screened_rows(engine, bucket)
        together = add_screened_rows(landed, sent, consented)
        doubts = read_doubted_dates(engine, bucket)
        kept = together.join(doubts, on=[JOIN_KEY, INDEX_DATE], how="anti", maintain_order="left")
        frames.append(kept)
        futures.append(collect_futures(kept, labelled.surveys))
        screened += together.height - landed.height
        doubted += together.height - kept.height
        unreadable += odd
        adjudicated += labelled.adjudicated
        for name, reason in EXCLUDED.items():
            excluded[reason] += getattr(labelled, name)
    excluded |= {DOUBTED: doubted, UNREADABLE: unreadable}
    return Collected(
        pl.concat(frames), np.concatenate(futures), screened, doubted, adjudicated, excluded
    )


def require_enough(entities: pl.DataFrame) -> None:
    """Raise NotEnoughLabelsError where there are too few rows or outcomes to learn from."""
    outcomes = int(entities[LABEL].sum() or 0)
    if entities.height < MIN_ROWS or outcomes < MIN_OUTCOMES:
        raise NotEnoughLabelsError(
            f"{entities.height} labelled index dates of {entities[JOIN_KEY].n_unique()} "
            f"individuals who consent to training, {outcomes} with the outcome; at least "
            f"{MIN_ROWS} and {MIN_OUTCOMES} are needed (a PHQ-9 followed by another within "
            "90 days each, or an adjudicated outcome)"
        )


def require_both_outcomes(split: Split, labels: Labels) -> None:
    """Raise NotEnoughLabelsError where a part of the split lacks one of the outcomes.

    Labels are bool [rows].
    """
    for name in ("fitting", "stopping", "calibration", "held_out"):
        chosen = getattr(split, name)
        occurred = int(labels[chosen].sum())
        least = min(occurred, int(chosen.sum()) - occurred)
        if least < MIN_OF_A_PART:
            raise NotEnoughLabelsError(
                f"the {name.replace('_', '-')} part of the people has {int(chosen.sum())} labelled "
                f"index dates, {occurred} with the outcome; at least {MIN_OF_A_PART} with and "
                "without it are needed in each part"
            )


def blank_unconsented(frame: pl.DataFrame, consented: pl.DataFrame) -> pl.DataFrame:
    """Take away the features of data types whose use for training is not consented to."""
    channels = {f"weekly_{name}": kind for name, (_, _, kind) in SEQUENCE_CHANNELS.items()}
    needed = {column.name: column.data_type for column in list_model_inputs()} | channels
    joined = frame.join(consented, on=JOIN_KEY, how="left", maintain_order="left")
    blanked = [
        pl.when(pl.col(data_type)).then(pl.col(name)).alias(name)
        for name, data_type in needed.items()
        if data_type is not None
    ]
    return joined.with_columns(blanked).drop(DATA_TYPES)
