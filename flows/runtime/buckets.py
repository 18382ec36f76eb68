"""Where work by hash bucket runs: threads of this process, or a Dask cluster, by one setting.

A task is given the number of its bucket and opens for itself what it needs, so that it runs
anywhere with the same environment. DASK_SCHEDULER_ADDRESS names the cluster.
"""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from prefect import Task, get_run_logger
from prefect.futures import as_completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from serving.settings import get_settings

Result = TypeVar("Result")


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
