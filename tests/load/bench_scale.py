"""What features, batch screening and drift of a cohort cost: time and peak memory by individuals.

Time should grow with them, memory should not. CPU is that of the flow, without PostgreSQL's, and
changes less beside other work. Everything is real: PostgreSQL, the lake, Feast's
online store, MLflow with a trained release, Prefect. Each part runs in a process of its own, as a
worker's flow run does, so that peaks do not add up. ``python -m tests.load.bench_scale 10000``.
"""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from time import perf_counter, process_time

import polars as pl
import psutil

from feature_repo.pseudonyms import BUCKET_COUNT
from infra.local.ports import choose_port
from infra.local.postgres import PostgresServer, remove_root_state, start_postgres
from infra.local.stack import FLOW_THREADS

SIZES = (10_000, 30_000, 100_000)
YEARS = 1
SEED = 11
#: Individuals that the release is trained on.
TRAINED_ON = 2_000
PARTS = ("features", "screening", "drift")


def main() -> None:
    sizes = [int(size) for size in sys.argv[1:]] or SIZES
    with tempfile.TemporaryDirectory(prefix="mhras-scale-") as name:
        folder = Path(name)
        server = start_postgres(folder / "postgres", choose_port(15732), "bench")
        try:
            with serve_release(server, folder) as release:
                print_header()
                for people in sizes:
                    measure_size(server, folder / f"{people}", people, release)
        finally:
            server.stop()
            remove_root_state(folder / "postgres")


def print_header() -> None:
    print(f"\nFeatures, batch screening and its drift, {YEARS} year of data each\n")
    print(
        f"{'people':>8} {'part':>10} {'seconds':>8} {'ms a person':>12} {'CPU ms':>7} "
        f"{'peak MB':>8} {'of imports':>10} {'files MB':>9}",
        flush=True,
    )


@contextmanager
def serve_release(server: PostgresServer, folder: Path) -> Iterator[dict[str, str]]:
    """Train a release of the tabular members on a small world; yield how it is reached."""
    from tests.fixtures.mlflow_server import run_mlflow_server
    from tests.fixtures.trained_world import make_variables

    world = folder / "world"
    world.mkdir()
    variables = make_variables(server, world)
    run_part("train", variables, str(world))
    with run_mlflow_server(world, choose_port(16200)) as url:
        yield {"MLFLOW_TRACKING_URI": url}


def measure_size(
    server: PostgresServer, folder: Path, people: int, release: dict[str, str]
) -> None:
    from tests.fixtures.trained_world import make_variables

    folder.mkdir()
    variables = make_variables(server, folder) | release
    run_part("land", variables, str(people))
    for part in PARTS:
        run_part(part, variables, str(people))


def run_part(part: str, variables: dict[str, str], argument: str) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.load.bench_scale", part, argument]
    subprocess.run(command, env=os.environ | variables | QUIET, check=True)


#: Prefect's own server of a run starts within this even on a busy machine.
QUIET = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    **FLOW_THREADS,
}


def find_last_day() -> date:
    return datetime.now(UTC).date() - timedelta(days=1)


# What each process does


def train(folder: str) -> None:
    from flows.cohort import simulate_cohort, write_drop
    from flows.ingestion import ingest
    from flows.materialisation import materialise_features
    from flows.training import train as train_release
    from mlruns_config.gates import load_gates
    from mlruns_config.registry import transitions as registry
    from tests.fixtures.trained_world import GATES

    registry.load_gates = lambda: load_gates(GATES)  # type: ignore[assignment]
    drop = Path(folder) / "drop"
    write_drop(simulate_cohort(TRAINED_ON, 2, find_last_day(), SEED), drop)
    ingest(str(drop))
    materialise_features()
    report = train_release(members=("logistic_regression", "lightgbm", "isolation_forest"))
    if report.stage != "Production":
        raise SystemExit(f"the release was refused: {report.refused}")


def land(people: str) -> None:
    """Put a cohort of consenting individuals into the lake, a bucket in one append."""
    from flows.cohort import simulate_cohort
    from flows.lake.consent_database import write_rows
    from flows.lake.merging import merge_rows
    from serving.database.sessions import create_database_engine, open_session
    from serving.settings import get_settings
    from tests.fixtures.landed_tables import land_block

    settings = get_settings()
    engine = create_database_engine(settings.database_url.get_secret_value())
    with tempfile.TemporaryDirectory(dir=settings.lake_url.rpartition("/")[0]) as staged:
        blocks = simulate_cohort(int(people), YEARS, find_last_day(), SEED)
        for number, block in enumerate(blocks):
            tables = land_block(block)
            with open_session(engine) as session:
                write_rows(session, make_consents(tables["people"]), {})
            for name, rows in tables.items():
                for (bucket,), part in rows.partition_by("bucket", as_dict=True).items():
                    part.write_parquet(f"{staged}/{name}-{bucket}-{number}.parquet")
        for name in tables:
            for bucket in range(BUCKET_COUNT):
                rows = pl.read_parquet(f"{staged}/{name}-{bucket}-*.parquet")
                merge_rows(settings.lake_url, name, rows)


def make_consents(people: pl.DataFrame) -> pl.DataFrame:
    now = datetime.now(UTC)
    return people.select(
        "anonymized_id",
        "key_id",
        pl.lit(["survey", "wearable", "emr"], dtype=pl.List(pl.String)).alias("data_types"),
        pl.lit(["screening", "training"], dtype=pl.List(pl.String)).alias("purposes"),
        pl.lit(now - timedelta(days=400)).alias("granted_at"),
        pl.lit(now + timedelta(days=400)).alias("expires_at"),
    )


def features(people: str) -> None:
    from flows.materialisation import materialise_features

    measure(people, "features", lambda: materialise_features())


def screening(people: str) -> None:
    from flows.batch_screening import screen_everybody

    counts = measure(people, "screening", lambda: screen_everybody("bench"))
    if counts.screened < 0.9 * int(people):
        raise SystemExit(f"hardly anybody was screened: {counts}")


def drift(people: str) -> None:
    """Compare what the batch before was screened with to the training of the release."""
    from flows.drift import watch_drift

    if measure(people, "drift", watch_drift) is None:
        raise SystemExit("nothing was compared")


def measure(people: str, part: str, work):  # type: ignore[no-untyped-def]
    start_prefect()
    before = psutil.Process().memory_info().rss / 2**20
    begun, used = perf_counter(), process_time()
    result = work()
    seconds, cpu = perf_counter() - begun, process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lake = Path(os.environ["LAKE_URL"])
    files = sum(file.stat().st_size for file in lake.rglob("*.parquet")) / 2**20
    print(
        f"{int(people):8,} {part:>10} {seconds:8.0f} {1000 * seconds / int(people):12.2f} "
        f"{1000 * cpu / int(people):7.2f} {peak:8.0f} {before:10.0f} {files:9.0f}",
        flush=True,
    )
    return result


def start_prefect() -> None:
    """Run a flow of nothing: Prefect's own server starts with the first, a worker's is there."""
    from prefect import flow

    flow(lambda: None, name="start")()


PROCESSES = {
    "train": train,
    "land": land,
    "features": features,
    "screening": screening,
    "drift": drift,
}

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in PROCESSES:
        PROCESSES[sys.argv[1]](sys.argv[2])
    else:
        main()
