"""A simulated cohort that behaves like consenting individuals under outpatient care.

Each individual has a latent weekly severity: a trait, a slow autoregressive part, a season and
episodes with a prodrome of some weeks; treatment relieves it. Questionnaires answer it and a
somatic factor through items fitted to NHANES, wearable days have the spread and rhythms of
LifeSnaps and lean on severity with published slopes, care events follow it as hazards. Groups
differ in severity and care as published. People leave, skip questionnaires, do not wear devices,
refuse consents. flows/simulation/README.md has the targets, their sources and what is reached.

It is meant to be hard: deterioration is predictable about as well as in published work
(AUROC 0.75 to 0.85), because episodes start by chance. Made in blocks of BLOCK_SIZE
individuals with a seed per block, so memory does not grow with the cohort and the first
thousand individuals are the same in a cohort of any size.

Command line: ``python -m flows.cohort --people 3000 --years 3 --seed 7 FOLDER``; --fhir writes FHIR
R4 NDJSON instead of Parquet.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated

import polars as pl
import pyarrow.parquet as pq
import typer

from flows.simulation.care import simulate_emr_events
from flows.simulation.fhir import write_fhir_drop
from flows.simulation.latent import BLOCK_SIZE, name_person, simulate_block
from flows.simulation.people import simulate_consents, simulate_people
from flows.simulation.questionnaires import simulate_surveys
from flows.simulation.wearables import simulate_wearable_days

DEFAULT_PEOPLE = 3000
#: Two years to learn from and be judged on, after one in which nobody has a history yet: ADR 0012.
DEFAULT_YEARS = 3


def require_block_start(begin: int) -> None:
    """Raise ValueError for a first individual inside a block."""
    if begin % BLOCK_SIZE:
        raise ValueError(f"{begin} is no multiple of {BLOCK_SIZE}")


def simulate_cohort(
    people: int, years: float, until: date, seed: int, begin: int = 0, more_severe: float = 0.0
) -> Iterator[dict[str, pl.DataFrame]]:
    """Yield the tables of the input contract, one block of individuals at a time.

    `until` is the last simulated day. The same arguments give the same rows. Other individuals come
    from another number to `begin` at (a multiple of BLOCK_SIZE); `more_severe` shifts them, in
    standard deviations of the general population, each about six points of PHQ-9. Raises
    ValueError for a `begin` inside a block.
    """
    require_block_start(begin)
    days = int(years * 365)
    start = until - timedelta(days=days - 1)
    for first in range(begin, begin + people, BLOCK_SIZE):
        block = simulate_block(first, start, days, seed, more_severe)
        tables = {
            "people": simulate_people(block),
            "surveys": simulate_surveys(block),
            "wearable_days": simulate_wearable_days(block),
            "emr_events": simulate_emr_events(block),
            "consents": simulate_consents(block),
        }
        # A whole block is always drawn, so a smaller cohort is a prefix of a larger one.
        beyond = name_person(begin + people)
        yield {name: frame.filter(pl.col("person_id") < beyond) for name, frame in tables.items()}


def write_drop(tables: Iterator[dict[str, pl.DataFrame]], folder: Path) -> dict[str, int]:
    """Write the tables as Parquet files of a drop; return the rows written of each."""
    folder.mkdir(parents=True, exist_ok=True)
    writers: dict[str, pq.ParquetWriter] = {}
    counts: dict[str, int] = {}
    try:
        for block in tables:
            for name, frame in block.items():
                arrow = frame.to_arrow()
                if name not in writers:
                    writers[name] = pq.ParquetWriter(folder / f"{name}.parquet", arrow.schema)
                writers[name].write_table(arrow.cast(writers[name].schema))
                counts[name] = counts.get(name, 0) + frame.height
    finally:
        for writer in writers.values():
            writer.close()
    return counts


def main(
    folder: Annotated[Path, typer.Argument(help="Where the drop is written.")],
    people: Annotated[int, typer.Option(min=1, help="Individuals to simulate.")] = DEFAULT_PEOPLE,
    years: Annotated[float, typer.Option(min=0.5, help="Years of history.")] = DEFAULT_YEARS,
    until: Annotated[
        datetime | None, typer.Option(help="Last simulated day (default: yesterday).")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same cohort.")] = 7,
    begin: Annotated[
        int,
        typer.Option(min=0, help=f"Number of the first individual, a multiple of {BLOCK_SIZE}."),
    ] = 0,
    more_severe: Annotated[float, typer.Option(help="Shift of severity, in population SDs.")] = 0.0,
    fhir: Annotated[bool, typer.Option("--fhir", help="FHIR R4 NDJSON, not Parquet.")] = False,
) -> None:
    """Write a simulated cohort as a drop of the input contract."""
    last_day = until.date() if until else datetime.now(UTC).date() - timedelta(days=1)
    try:
        require_block_start(begin)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--begin") from error
    write = write_fhir_drop if fhir else write_drop
    counts = write(simulate_cohort(people, years, last_day, seed, begin, more_severe), folder)
    for name, count in counts.items():
        typer.echo(f"{name:15} {count:>12,} rows")


if __name__ == "__main__":
    typer.run(main)
