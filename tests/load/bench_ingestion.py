"""What ingesting a drop costs: microseconds a row and peak memory by number of individuals.

Files are read in batches and landed some buckets at a time, so memory should stay flat.
Prefect and PostgreSQL are left out.
"""

import resource
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from time import perf_counter

from flows.cohort import simulate_cohort, write_drop
from flows.simulation.fhir import write_fhir_drop
from flows.simulation.latent import name_person
from tests.fixtures.quiet_ingestion import ingest_quietly

SIZES = {"parquet": (500, 2000, 8000), "fhir": (50, 200, 800)}
LAST_DAY = date(2025, 5, 30)


def main() -> None:
    """Run each size in a process of its own, so that peaks do not add up."""
    print("\nIngestion of a simulated cohort (one year each), first and again\n")
    print(f"{'':8}{'people':>8} {'rows':>9} {'s':>8} {'s again':>8} {'us a row':>9} {'peak MB':>8}")
    command = [sys.executable, "-m", "tests.load.bench_ingestion"]
    for form, people in ((form, people) for form, sizes in SIZES.items() for people in sizes):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([*command, f"write_{form}", folder, str(people)], check=True)
            print(f"{form:8}", end="", flush=True)
            subprocess.run([*command, "measure", folder, str(people)], check=True)


def write_parquet(folder: str, people: int) -> None:
    """Write a drop in a process of its own: its memory is not ingestion's."""
    write_drop(simulate_cohort(people, 1, LAST_DAY, seed=7), Path(folder) / "drop")


def write_fhir(folder: str, people: int) -> None:
    """Write resources with ids, as every server does: they are the dear ones to keep."""
    drop = Path(folder) / "drop"
    write_fhir_drop(simulate_cohort(people, 1, LAST_DAY, seed=7), drop)
    for file in drop.glob("*.ndjson"):
        if file.stem.startswith("Patient"):
            continue
        bare = file.rename(file.with_suffix(".bare"))
        with bare.open() as read, file.open("w") as written:
            for number, line in enumerate(read):
                written.write(line.replace("{", f'{{"id": "{file.stem}-{number}", ', 1))
        bare.unlink()


def measure(folder: str, people: int) -> None:
    drop, lake_url = Path(folder) / "drop", str(Path(folder) / "lake")
    everyone = list(map(name_person, range(people)))
    times = []
    for _ in ("first", "again"):
        begun = perf_counter()
        report = ingest_quietly(drop, lake_url, everyone)
        times.append(perf_counter() - begun)
    rows = sum(counts.read for counts in report.tables.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    each = 1e6 * times[0] / rows
    print(f"{people:8,} {rows:12,} {times[0]:8.1f} {times[1]:8.1f} {each:9.1f} {peak:8.0f}")


if __name__ == "__main__":
    if sys.argv[1:]:
        globals()[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
    else:
        main()
