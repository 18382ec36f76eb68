"""Where work by hash bucket runs: threads of this process, or a Dask cluster, by one setting.

A task is given the number of its bucket and opens for itself what it needs, so that it runs
anywhere with the same environment. DASK_SCHEDULER_ADDRESS names the cluster. What takes memory
goes through a bucket by spans of pseudonyms, so that it does not grow with the individuals.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import polars as pl
from prefect import Task, get_run_logger
from prefect.futures import as_completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from feature_repo.individual import JOIN_KEY
from flows.lake.tables import scan_table
from flows.sources.contract import CONSENTS, TABLES
from serving.settings import get_settings

Result = TypeVar("Result")

#: Individuals whose rows are in memory at once, about.
SPAN_SIZE = 500
#: Digits of a pseudonym that spans differ by; the next one is the bucket's.
SPAN_DIGITS = 3


@dataclass(frozen=True)
class Span:
    """The pseudonyms from `first` on, as far as those before `beyond`."""

    first: str = ""
    beyond: str = "g"

    def holds(self) -> pl.Expr:
        """Return the condition that a row's individual is of the span."""
        return (pl.col(JOIN_KEY) >= self.first) & (pl.col(JOIN_KEY) < self.beyond)


EVERYBODY = Span()


def divide(individuals: int, size: int = SPAN_SIZE) -> list[Span]:
    """Return the spans of which each holds about `size` of `individuals`, or fewer.

    Their number is a power of two: as individuals join, spans are halved, and what was written
    for one holds nobody of another.
    """
    places = 16**SPAN_DIGITS
    count = min(places, 2 ** max(0, (individuals - 1) // size).bit_length())
    width = places // count
    edges = [f"{first:0{SPAN_DIGITS}x}" for first in range(0, places, width)]
    return [
        Span(first, beyond)
        for first, beyond in zip(["", *edges[1:]], [*edges[1:], EVERYBODY.beyond], strict=True)
    ]


def list_spans(lake_url: str, bucket: int) -> list[Span]:
    """Return the spans in which to go through the landed rows of a bucket."""
    return divide(count_individuals(lake_url, bucket))


def count_individuals(lake_url: str, bucket: int) -> int:
    """Return how many individuals the fullest table of a bucket holds rows of."""
    counts = [
        scan_table(lake_url, name, bucket).select(pl.col(JOIN_KEY).n_unique())
        for name in TABLES
        if name != CONSENTS.name
    ]
    return max(int(count.collect(engine="streaming").item()) for count in counts)


def run_buckets(
    work: Task[..., Result], buckets: Iterable[int], **parameters: Any
) -> Iterator[Result]:
    """Run a task for every bucket; yield the results as they come, in no order.

    A bucket that fails stops no other; the first error is raised when all have ended.
    """
    failures: list[Exception] = []
    with choose_runner() as runner:
        futures = [runner.submit(work, {"bucket": bucket, **parameters}) for bucket in buckets]
        for future in as_completed(futures):
            try:
                result = future.result()
            except Exception as error:
                get_run_logger().error("a bucket failed: %s", type(error).__name__)
                failures.append(error)
            else:
                yield result
    if failures:
        raise failures[0]


def choose_runner() -> TaskRunner[Any]:
    """Return the runner that the settings name."""
    settings = get_settings()
    if settings.dask_scheduler_address is None:
        return ThreadPoolTaskRunner(max_workers=settings.bucket_workers)
    # Here, not at the top: Dask takes a second to import, and few runs need it.
    from prefect_dask import DaskTaskRunner

    return DaskTaskRunner(address=settings.dask_scheduler_address)
