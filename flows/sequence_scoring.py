"""The flow that embeds the weeks by the sequence members when weekly data have landed.

A network takes most of a screening's time, and its weeks change once a day. Its embeddings go to
the online store under version and hash of the weeks; serving gives them to the network's head
where they fit, together with the answers of the day.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any

import numpy as np
import onnxruntime
import polars as pl
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from feature_repo.feature_tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from feature_repo.pseudonyms import BUCKET_COUNT
from feature_repo.sequence_outputs import sequence_outputs
from feature_repo.stored_views import JOIN_KEY
from feature_repo.weekly_sequence import SEQUENCE_CHANNELS, weekly_sequence
from flows.datasets.rows import Matrix, Sequences
from flows.datasets.training_set import stack_sequences
from flows.features.backfilled import list_filled_days
from flows.features.moments import find_midnight
from flows.features.online import open_writer, read_consents, write_online
from flows.features.tables import hold_past_nights, merge_rows, read_latest, scan_bucket
from flows.lake.spans import list_spans
from flows.models.member import GRAPH_INPUT, SEQUENCE_INPUT, open_session
from flows.models.registration import GRAPH_FILE
from flows.runtime.buckets import run_buckets
from flows.runtime.database import open_database
from flows.runtime.notifications import NOTIFICATION_HOOKS
from flows.runtime.retries import IO_RETRIES
from mlruns_config.manifest import EMBEDDING, MemberPin
from mlruns_config.registry.transitions import find_production, open_registry, read_manifest
from serving.scoring.sequence_outputs import make_output_key
from serving.settings import get_settings

#: Sequences scored in one call: bounds memory, and more in one are no faster.
ROWS_PER_CALL = 500

Pins = Sequence[MemberPin]


@flow(name="sequence-scoring", timeout_seconds=12 * 3600, **NOTIFICATION_HOOKS)
def score_sequences(as_of: date | None = None) -> int:
    """Score the stored weeks of one day and serve the outputs; return how many.

    Nothing is scored without a Production release that has sequence members.

    Args:
        as_of: Day whose weeks are scored; nothing: today (UTC).
    """
    snapshot = as_of or datetime.now(UTC).date()
    pins = find_sequence_members()
    buckets = range(BUCKET_COUNT if pins else 0)
    lake_url = get_settings().lake_url
    scored = sum(
        run_buckets(score_bucket, buckets, pins=pins, lake_url=lake_url, snapshot=snapshot)
    )
    names = ", ".join(pin.name for pin in pins) or "nobody"
    get_run_logger().info("%d sequences scored by %s", scored, names)
    return scored


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def find_sequence_members() -> list[MemberPin]:
    """Return the pins of the Production release's members that embed the weekly sequence."""
    with open_database() as engine:
        registry = open_registry(get_settings().mlflow_tracking_uri, engine)
        production = find_production(registry)
    members = [] if production is None else read_manifest(registry, production).members
    return [pin for pin in members if pin.has_head]


@task(cache_policy=NO_CACHE, task_run_name="score-bucket-{bucket}", **IO_RETRIES)
def score_bucket(
    pins: Pins, bucket: int, lake_url: str, snapshot: date, serves: bool = True
) -> int:
    """Score one bucket of individuals; return the number of sequences.

    Outputs of a past day are kept and not served: the online store holds today's.
    """
    consented = read_consents(bucket)
    stored, midnight = scan_bucket(weekly_sequence, bucket), find_midnight(snapshot)
    past = hold_past_nights(snapshot, list_filled_days(lake_url))
    scored = 0
    with open_writer() as writer:
        for span in list_spans(lake_url, bucket):
            latest = read_latest(weekly_sequence, stored, span, midnight)
            asked = latest.join(consented, on=JOIN_KEY, how="inner", maintain_order="left")
            if not asked.is_empty():
                outputs = compute_outputs(pins, asked)
                merge_rows(sequence_outputs, bucket, outputs, span, past=past)
                if serves:
                    write_online(writer, sequence_outputs, outputs)
                scored += outputs.height
    return scored


def compute_outputs(pins: Pins, rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows of sequence_outputs for rows of weekly_sequence with consents."""
    weeks = stack_sequences(blank_channels(rows))
    outputs: dict[str, Any] = {}
    for pin in pins:
        outputs[f"{pin.name}_embedding"] = embed_in_parts(pin, weeks)
        outputs[f"{pin.name}_key"] = [
            make_output_key(pin.version, sequence[None]) for sequence in weeks
        ]
    names = [feature.name for feature in sequence_outputs.features]
    # One row a day: scored again, by another release say, it replaces what was there.
    created = pl.col(EVENT_TIMESTAMP).alias(CREATED_TIMESTAMP)
    return rows.select(JOIN_KEY, EVENT_TIMESTAMP, created).with_columns(
        pl.Series(name, list(outputs[name])) if name in outputs else pl.lit(None).alias(name)
        for name in names
    )


def blank_channels(rows: pl.DataFrame) -> pl.DataFrame:
    """Take away the channels of data types without consent, as serving does."""
    return rows.with_columns(
        pl.when(pl.col(data_type)).then(pl.col(f"weekly_{channel}")).alias(f"weekly_{channel}")
        for channel, (_, _, data_type) in SEQUENCE_CHANNELS.items()
    )


def embed_in_parts(pin: MemberPin, weeks: Sequences) -> Matrix:
    """Return a member's embedding of each sequence, float32 [rows, size]."""
    session = open_member(pin.registered_model, pin.version)
    # The embedding is of the weeks alone; the graph still wants features to run.
    width = next(node.shape[1] for node in session.get_inputs() if node.name == GRAPH_INPUT)
    unknown = np.full((ROWS_PER_CALL, width), np.nan, np.float32)
    parts = [weeks[begin : begin + ROWS_PER_CALL] for begin in range(0, len(weeks), ROWS_PER_CALL)]
    outputs = [
        session.run([EMBEDDING], {SEQUENCE_INPUT: part, GRAPH_INPUT: unknown[: len(part)]})[0]
        for part in parts
    ]
    return np.concatenate(outputs)


@lru_cache(maxsize=4)
def open_member(registered_model: str, version: int) -> onnxruntime.InferenceSession:
    """Return a member's graph; a version never changes, so a process opens it once."""
    client = MlflowClient(get_settings().mlflow_tracking_uri)
    source = client.get_model_version_download_uri(registered_model, str(version))
    path = download_artifacts(f"{source}/{GRAPH_FILE}", tracking_uri=client.tracking_uri)
    return open_session(path)
