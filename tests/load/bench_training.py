"""What a training costs by number of individuals: seconds, processor time, peak memory.

Each cohort is ingested and made features of in one process and trained on in another, whose
peak is printed together with that of the process that fits networks beside it. Memory should
grow more slowly than the cohort.
Command line: ``python -m tests.load.bench_training [--all-members] [PEOPLE ...]``.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import active_children
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from time import perf_counter

import psutil

from infra.local.ports import choose_port
from infra.local.postgres import PostgresServer, remove_root_state, start_postgres
from infra.local.stack import FLOW_THREADS

SIZES = (2_000, 20_000)
SEED = 7
SECONDS_BETWEEN_LOOKS = 0.5
#: `cpu s` are seconds of the processor, which hardly depend on what else the machine does.
HEADER = f"{'people':>8} {'step':>12} {'rows':>10} {'seconds':>8} {'cpu s':>8} {'peak MB':>8}"
#: The figures alone are printed.
QUIET = {
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "TQDM_DISABLE": "1",
    **FLOW_THREADS,
}


def main(sizes: tuple[int, ...] = SIZES, members: str = "tabular") -> None:
    """Prepare and train each size in processes of its own, so that peaks do not add up."""
    print(f"\nTraining on a simulated cohort, {members} members\n")
    print(HEADER, flush=True)
    with run_postgres() as (server, folder):
        for people in sizes:
            measure_steps(server, folder / str(people), people, members)


@contextmanager
def run_postgres() -> Iterator[tuple[PostgresServer, Path]]:
    """Run a PostgreSQL of its own in a folder that is removed at the end; yield both."""
    with TemporaryDirectory(prefix="mhras-bench-") as name:
        folder = Path(name)
        server = start_postgres(folder / "postgres", choose_port(15432), "bench")
        try:
            yield server, folder
        finally:
            server.stop()
            remove_root_state(folder / "postgres")


def measure_steps(
    server: PostgresServer,
    folder: Path,
    people: int,
    members: str,
    seed: int = SEED,
    steps: tuple[str, ...] = ("prepare", "train"),
) -> dict[str, str]:
    """Prepare and train in processes of their own; return the environment of that state."""
    from tests.fixtures.trained_world import make_variables

    folder.mkdir()
    variables = make_variables(server, folder) | QUIET
    for step in steps:
        command = [sys.executable, "-m", "tests.load.bench_training", step]
        command += [str(people), str(folder), members, str(seed)]
        subprocess.run(command, env=os.environ | variables, check=True)
    return variables


def prepare(people: int, folder: Path, seed: int) -> int:
    """Simulate, ingest, make features; return the landed rows."""
    from datetime import timedelta

    from flows.cohort import DEFAULT_YEARS, simulate_cohort, write_drop
    from flows.ingestion import ingest
    from flows.materialisation import materialise_features
    from flows.validation import validate_lake
    from tests.fixtures.trained_world import LAST_DAY

    cohort = simulate_cohort(people, DEFAULT_YEARS, LAST_DAY, seed)
    counts = write_drop(cohort, folder / "drop")
    ingest(str(folder / "drop"))
    validate_lake()
    materialise_features(LAST_DAY + timedelta(days=1))
    return sum(counts.values())


def train(members: str, seed: int) -> int:
    """Train on what is prepared; return the labelled rows, print whether the gates let it pass."""
    from flows import training
    from flows.models.families import FAMILIES, TABULAR_FAMILIES

    chosen = FAMILIES if members == "all" else TABULAR_FAMILIES
    report = training.train(seed=seed, actor="a benchmark", members=chosen)
    print(report.refused or f"release {report.release_version} is in {report.stage}", flush=True)
    return int(report.metrics["rows"])


def measure(step: str, people: int, folder: Path, members: str, seed: int) -> None:
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180), watch_memory() as peak:
        begun = perf_counter()
        rows = prepare(people, folder, seed) if step == "prepare" else train(members, seed)
        seconds = perf_counter() - begun
        # Before Prefect's server has ended, which is not counted.
        used = [resource.getrusage(one) for one in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    processor = sum(one.ru_utime + one.ru_stime for one in used)
    figures = f"{rows:10,} {seconds:8.1f} {processor:8.1f} {peak[0] / 2**20:8.0f}"
    print(f"{people:8,} {step:>12} {figures}", flush=True)


@contextmanager
def watch_memory() -> Iterator[list[int]]:
    """Yield the peak of this process and of those that fit networks beside it, in bytes."""
    peak, ended = [0], Event()

    def watch() -> None:
        while not ended.wait(SECONDS_BETWEEN_LOOKS):
            peak[0] = max(peak[0], sum_memory())

    watcher = Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()


def sum_memory() -> int:
    """Return what this process and its fitting processes hold in memory, in bytes.

    Pages that they share, those of libraries say, count once.
    """
    sizes = [psutil.Process().memory_full_info().pss]
    for child in active_children():
        with suppress(psutil.NoSuchProcess):  # it has ended since
            sizes.append(psutil.Process(child.pid).memory_full_info().pss)
    return sum(sizes)


if __name__ == "__main__":
    asked = sys.argv[1:]
    if asked and asked[0] in ("prepare", "train"):
        measure(asked[0], int(asked[1]), Path(asked[2]), asked[3], int(asked[4]))
    else:
        numbers = tuple(int(one) for one in asked if one != "--all-members")
        main(numbers or SIZES, "all" if "--all-members" in asked else "tabular")
