"""The backfill flow: what the nightly flows would have made of past days, made now.

Features of days that were never computed (history that was ingested late), the sequence
members' outputs of those days, and drift reports of past windows. The online store is left alone:
it serves today. Done days are kept in the lake, so a run that was cut off does what is left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import (
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE

from feature_repo.pseudonyms import BUCKET_COUNT
from flows.drift import (
    WINDOW_DAYS,
    examine,
    load_reference,
    log_report,
    store_summary,
)
from flows.evaluation.drift_report import Window, make_summary
from flows.features.backfilled import Done, Step, list_done, remember, remember_begin
from flows.features.moments import find_midnight
from flows.materialisation import apply_definitions, compute_bucket
from flows.runtime.buckets import run_buckets
from flows.runtime.notifications import NOTIFICATION_HOOKS
from flows.runtime.releases import hold_registry
from flows.runtime.retries import IO_RETRIES
from flows.sequence_scoring import find_sequence_members, score_bucket
from mlruns_config.registry.transitions import find_production
from monitoring.drift_reference import DriftReference
from serving.predictions.drift_records import DATASETS
from serving.settings import get_settings

STEPS: tuple[Step, ...] = ("features", "sequences", "drift")
#: A year and a month: more in one run is a mistake in a date.
MAX_DAYS = 400


class RangeError(ValueError):
    """The days to fill are no range of past days."""


@dataclass(frozen=True)
class Filled:
    """What one day and step came to: rows, or None where there was nothing to do it with."""

    day: date
    step: Step
    rows: int | None


@flow(name="backfill", timeout_seconds=48 * 3600, **NOTIFICATION_HOOKS)
def backfill(
    begin: date,
    end: date,
    steps: Sequence[Step] = STEPS,
    every_days: int = 1,
    again: bool = False,
) -> list[Filled]:
    """Make features, sequence outputs and drift reports of past days; resumable.

    A day that was filled before, by the same Production release where one takes part, is left
    out. Raises RangeError.

    Args:
        begin: First day (UTC).
        end: Last day, at the latest yesterday.
        steps: What is made of each day, in this order.
        every_days: Fill every so many days only, from the first on; drift windows of 30 days
            overlap, and 7 is as informative.
        again: Recompute days already filled, to include late data.
    """
    days = list_days(begin, end, every_days)
    release = find_release()
    done = set() if again else list_done(get_settings().lake_url)
    wanted = [Done(day, step, name_release(step, release)) for day in days for step in steps]
    left = [day_step for day_step in wanted if day_step not in done]
    get_run_logger().info("%d of %d days and steps are left", len(left), len(wanted))
    progress: Any = create_progress_artifact(0.0, key="backfill-progress")
    if any(day_step.step == "features" for day_step in left):
        apply_definitions()
    filled = []
    for number, day_step in enumerate(left, 1):
        filled.append(Filled(day_step.day, day_step.step, fill(day_step)))
        remember(get_settings().lake_url, day_step)
        update_progress_artifact(progress, 100 * number / len(left))
    create_table_artifact(
        [vars(result) | {"day": str(result.day)} for result in filled], key="backfill"
    )
    return filled


def list_days(begin: date, end: date, every_days: int) -> list[date]:
    """Return the days of a range; raises RangeError for one that is none, or not past."""
    if every_days < 1:
        raise RangeError(f"every {every_days} days is no step")
    if end < begin:
        raise RangeError(f"the range ends on {end}, before it begins on {begin}")
    if end >= datetime.now(UTC).date():
        raise RangeError(f"{end} is not over yet: the nightly flows are for today")
    if (end - begin).days >= MAX_DAYS:
        raise RangeError(f"{(end - begin).days + 1} days are more than {MAX_DAYS} in one run")
    return [begin + timedelta(days=n) for n in range(0, (end - begin).days + 1, every_days)]


@task(cache_policy=NO_CACHE, **IO_RETRIES)
def find_release() -> int | None:
    with hold_registry() as registry:
        return find_production(registry)


def name_release(step: Step, release: int | None) -> int | None:
    """Return the release that a step's result depends on; features depend on none."""
    return None if step == "features" else release


def fill(day_step: Done) -> int | None:
    """Do one step of one day; return the rows that came of it."""
    if day_step.step == "features":
        return fill_features(day_step.day)
    if day_step.step == "sequences":
        return fill_sequences(day_step.day)
    return fill_drift(day_step.day)


def fill_features(day: date) -> int:
    """Compute the features as of the start of a day; return the rows that are new."""
    lake_url, buckets = get_settings().lake_url, range(BUCKET_COUNT)
    # First, so that a night in the meantime keeps the rows of the day.
    remember_begin(lake_url, day)
    counts = run_buckets(compute_bucket, buckets, lake_url=lake_url, snapshot=day)
    return sum(changed for bucket in counts for _, changed in bucket.values())


def fill_sequences(day: date) -> int | None:
    """Score the stored weeks of a day; None without sequence members in Production."""
    pins = find_sequence_members()
    if not pins:
        return None
    given: dict[str, Any] = {"lake_url": get_settings().lake_url, "snapshot": day}
    return sum(run_buckets(score_bucket, range(BUCKET_COUNT), pins=pins, serves=False, **given))


def fill_drift(day: date) -> int | None:
    """Report on the window that ended with a day; None where too little was screened in it.

    The report is stored like those of the drift flow, without a notification.
    """
    reference = load_reference()
    if reference is None:
        return None
    version, summary = reference
    end = find_midnight(day) + timedelta(days=1)
    screened = [
        fill_window(Window(version, end - timedelta(days=WINDOW_DAYS), end, dataset), summary)
        for dataset in DATASETS
    ]
    counts = [count for count in screened if count is not None]
    return sum(counts) if counts else None


def fill_window(window: Window, summary: DriftReference) -> int | None:
    """Report on one window; return its screenings, None where they are too few."""
    if (examined := examine(window, summary)) is None:
        return None
    threshold = get_settings().drift_threshold
    run_id = log_report(window, examined.sample, examined.drift, threshold)
    store_summary(make_summary(window, examined.sample, examined.drift, threshold, run_id))
    return examined.sample.screened
