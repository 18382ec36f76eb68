"""What POST /screen costs, whole: token, consent, features, five members, reasons, durable rows.

Beside it, in the same run: `mlflow models serve` and MLServer with LightGBM and nothing else, a
screening as one would write it first, and the parts by themselves. State is kept in `.mhras/bench`,
so the first run trains a release (minutes) and later ones only start what they need.
"""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from rich.console import Console
from sqlalchemy import create_engine, text

from flows.models.families import FAMILIES
from infra.local.ports import choose_port
from infra.local.processes import ManagedProcess, start_process, wait_until_healthy
from infra.local.stack import PROJECT, LocalStack, start_stack
from infra.local.tour import has_release, make_release
from serving.auth.tokens import issue_token
from serving.roles import Role
from tests.load.rival_servers import RIVALS, save_trees

STATE = PROJECT / ".mhras" / "bench"
PEOPLE = 2000
#: Callers; each may ask 100 times a minute.
CALLERS = 1500
CONNECTIONS = (1, 8, 32)
WORKERS = (1, 2)
SECONDS = 8.0
#: Shares of the capacity, which is the rate at the most connections, at which requests arrive.
ARRIVALS = (0.5, 0.8)
ARRIVAL_CONNECTIONS = 64
WARM_UP_SECONDS = 3.0
NAIVE_ROUNDS = 60


@dataclass(frozen=True)
class Measured:
    """Requests a second, latencies in ms, CPU ms a request, answers other than 200."""

    rate: float
    p50: float
    p95: float
    p99: float
    cpu: float
    errors: int


def main() -> None:
    console = Console(highlight=False)
    stack = start_stack(STATE, lambda name, what: console.print(f"[dim]{name} {what}[/]"))
    try:
        if not has_release(stack):
            parameters = {"drop": None, "people": PEOPLE, "members": FAMILIES}
            make_release(stack, parameters, console)
        stop_what_is_not_measured(stack)
        with TemporaryDirectory() as folder:
            report(stack, Path(folder))
    finally:
        stack.stop()


def stop_what_is_not_measured(stack: LocalStack) -> None:
    for service in list(stack.services):
        if service.name in ("api", "prefect", "worker"):
            service.stop()
            stack.services.remove(service)


def report(stack: LocalStack, folder: Path) -> None:
    individuals = list_individuals(stack)
    requests = write_requests(stack, individuals, folder / "screenings.jsonl")
    print(f"\nPOST /screen, durable, {len(individuals)} individuals, {CALLERS} callers\n")
    print_head()
    ours = {}
    for workers in WORKERS:
        with run_api(stack, workers) as (api, port):
            for connections in CONNECTIONS:
                measured = measure(api, port, connections, requests)
                ours[workers, connections] = measured
                print_row(f"/screen, {workers} worker(s)", connections, measured)
            if workers == 1:
                measure_arrivals(api, port, requests, ours[1, max(CONNECTIONS)].rate)
            print(f"{'':30} RSS of a worker {measure_memory(api):.0f} MB")
    theirs = report_rivals(stack, folder)
    naive = float(run_beside(stack, "naive_screening", str(NAIVE_ROUNDS), individuals))
    print_parts(json.loads(run_beside(stack, "screening_parts", None, individuals)), ours[1, 8])
    print_ratios(ours, theirs, naive)


def measure_arrivals(api: ManagedProcess, port: int, requests: Path, capacity: float) -> None:
    """Print latencies where requests arrive at a fixed rate, as people's do."""
    for share in ARRIVALS:
        arrived = measure(api, port, ARRIVAL_CONNECTIONS, requests, share * capacity)
        print_row(f"arriving at {share:.0%} of that", ARRIVAL_CONNECTIONS, arrived)
        print(f"{'':30} p99 is {arrived.p99 / arrived.p50:.1f} x p50")


def report_rivals(stack: LocalStack, folder: Path) -> dict[str, dict[int, Measured]]:
    """Print and return what other servers do with the release's own trees and nothing else."""
    trees = save_trees(stack, folder)
    found: dict[str, dict[int, Measured]] = {}
    for name, run in RIVALS.items():
        found[name] = {}
        with run(stack, trees) as (server, port, requests):
            for connections in CONNECTIONS:
                measured = measure(server, port, connections, requests)
                found[name][connections] = measured
                print_row(f"{name}, LightGBM", connections, measured)
    return found


def print_ratios(
    ours: dict[tuple[int, int], Measured], theirs: dict[str, dict[int, Measured]], naive: float
) -> None:
    print("\nratios, same run\n")
    for connections in CONNECTIONS:
        best = max(ours[workers, connections].rate for workers in WORKERS)
        ratios = (
            f"{best / found[connections].rate:5.2f} x {name}" for name, found in theirs.items()
        )
        print(f"{connections:3} connections: requests/s are {', '.join(ratios)}")
    cpu = ours[1, 8].cpu
    print(f"CPU a request: {cpu:.2f} ms; written naively {naive:.1f} ms ({naive / cpu:.0f} x)")


def print_head() -> None:
    names = ("connections", "requests/s", "p50 ms", "p95 ms", "p99 ms", "CPU ms", "errors")
    print(f"{'':30}" + "".join(f"{name:>12}" for name in names))


def print_row(what: str, connections: int, found: Measured) -> None:
    numbers = (found.rate, found.p50, found.p95, found.p99, found.cpu)
    print(
        f"{what:30}{connections:12}" + "".join(f"{n:12.2f}" for n in numbers) + f"{found.errors:12}"
    )


def list_individuals(stack: LocalStack) -> list[str]:
    """Return the people of the cohort: their consents began before they were recorded.

    `bench_ehr` adds people of whom nothing is known, whose screenings are cheaper.
    """
    engine = create_engine(stack.postgres.url("mhras"))
    query = (
        "SELECT anonymized_id FROM consent WHERE 'screening' = ANY(purposes) "
        "AND data_types @> ARRAY['survey'] AND granted_at <= now() AND expires_at > now() "
        "AND withdrawn_at IS NULL AND granted_at < recorded_at - interval '1 day' "
        "ORDER BY anonymized_id"
    )
    with engine.connect() as connection:
        found = list(connection.scalars(text(query)))
    engine.dispose()
    return found


def write_requests(stack: LocalStack, individuals: list[str], path: Path) -> Path:
    """Write one request for each pairing of a caller and an individual, in a seeded order."""
    secret = stack.environment["JWT_SECRET_KEY"]
    draw = random.Random(7)
    tokens = [
        issue_token(secret, f"bench_{n}", Role.CLINICIAN, timedelta(minutes=60))
        for n in range(CALLERS)
    ]
    lines = []
    for n in range(6 * CALLERS):
        answers = [draw.choice((0, 0, 1, 1, 2, 3)) for _ in range(8)]
        body = {
            "anonymized_id": individuals[n % len(individuals)],
            # One in twenty says yes to item 9.
            "survey_data": {"phq9": [*answers, int(draw.random() < 0.05)]},
        }
        headers = {"Authorization": f"Bearer {tokens[n % CALLERS]}"}
        lines.append(json.dumps({"path": "/screen", "headers": headers, "body": body}))
    path.write_text("\n".join(lines))
    return path


@contextmanager
def run_api(stack: LocalStack, workers: int) -> Iterator[tuple[ManagedProcess, int]]:
    port = choose_port(18000)
    command = [sys.executable, "-m", "serving", "--port", str(port), "--workers", str(workers)]
    environment = stack.environment | stack.make_api_environment()
    begun = time.monotonic()
    api = start_process("bench-api", command, environment, stack.state)
    try:
        wait_until_healthy(api, f"http://127.0.0.1:{port}/health/ready")
        print(f"{'':30} ready after {time.monotonic() - begun:.1f} s")
        yield api, port
    finally:
        api.stop()


def measure(
    server: ManagedProcess,
    port: int,
    connections: int,
    requests: Path,
    rate: float | None = None,
    warm_up: Path | None = None,
) -> Measured:
    """Measure a load after a warm-up; `warm_up` are requests of its own where each counts once.

    With a `rate` requests become due at that many a second.
    """
    run_load(port, connections, WARM_UP_SECONDS, warm_up or requests, rate)
    before = measure_cpu(server)
    found = run_load(port, connections, SECONDS, requests, rate)
    used = measure_cpu(server) - before
    times = sorted(1000 * latency for latency in found["latencies"])
    at = lambda share: times[min(len(times) - 1, int(share * len(times)))]  # noqa: E731
    return Measured(
        rate=len(times) / found["seconds"],
        p50=at(0.5),
        p95=at(0.95),
        p99=at(0.99),
        cpu=1000 * used / len(times),
        errors=found["errors"],
    )


def run_load(
    port: int, connections: int, seconds: float, requests: Path, rate: float | None = None
) -> dict:
    command = [sys.executable, "-m", "tests.load.http_load"]
    command += [str(port), str(connections), str(seconds), str(requests)]
    command += [str(rate)] if rate else []
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROJECT)
    return json.loads(done.stdout)


def list_processes(server: ManagedProcess) -> list[psutil.Process]:
    parent = psutil.Process(server.process.pid)
    return [parent, *parent.children(recursive=True)]


def measure_cpu(server: ManagedProcess) -> float:
    """Return the CPU seconds that a server and its workers have used."""
    return sum(sum(one.cpu_times()[:2]) for one in list_processes(server))


def measure_memory(server: ManagedProcess) -> float:
    return max(one.memory_info().rss for one in list_processes(server)) / 1e6


def run_beside(stack: LocalStack, module: str, argument: str | None, individuals: list[str]) -> str:
    """Run a measuring module in a process of its own; return the last line it prints."""
    command = [sys.executable, "-m", f"tests.load.{module}"]
    command += [*([argument] if argument else []), ",".join(individuals[:200])]
    done = subprocess.run(
        command,
        env=stack.environment | {"DATABASE_URL": stack.postgres.url("mhras")},
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout.splitlines()[-1]


def print_parts(parts: dict[str, dict[str, float]], whole: Measured) -> None:
    """Print the parts on the way of a request; none is in its caches where they run in turn."""
    alone, in_turn = parts["alone"], parts["in turn"]
    print(f"\nthe parts by themselves, CPU ms, one thread{'alone':>17}{'in turn':>9}\n")
    for name, milliseconds in alone.items():
        turn = f"{in_turn[name]:9.3f}" if name in in_turn else ""
        print(f"{name:44}{milliseconds:15.3f}{turn}")
    sums = [sum(measured[name] for name in in_turn) for measured in (alone, in_turn)]
    print(f"{'sum of those in turn':44}{sums[0]:15.3f}{sums[1]:9.3f}")
    ratios = "".join(f"{whole.cpu / milliseconds:9.2f}" for milliseconds in sums)
    print(f"{f'/screen, 8 connections: {whole.cpu:.2f}, ratios':44}{'':6}{ratios}")


if __name__ == "__main__":
    main()
