"""A simulated cohort that behaves like consenting individuals under outpatient care.

Each individual has a latent weekly severity: a trait, a slow autoregressive part and
episodes with a prodrome of some weeks. Questionnaires answer it through a graded response
model (Samejima 1969), wearables lean on it with the small effects that are published, care
events follow it as hazards. People skip questionnaires, do not wear devices, refuse consents.

It is meant to be hard: deterioration is predictable about as well as in published work
(AUROC 0.75 to 0.85), because episodes start by chance. Made in blocks of BLOCK_SIZE
individuals with a seed per block, so memory does not grow with the cohort and the first
thousand individuals are the same in a cohort of any size.

Command line: ``python -m flows.cohort --people 2000 --years 2 --seed 7 FOLDER``; --fhir writes FHIR
R4 NDJSON instead of Parquet.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import typer
from numpy.typing import NDArray

from flows.cohort_fhir import write_fhir_drop

Floats = NDArray[np.float64]

BLOCK_SIZE = 1000
DEFAULT_PEOPLE = 2000
DEFAULT_YEARS = 2

#: Weeks simulated before the first day so that episodes are already under way.
BURN_IN_WEEKS = 30

TRAIT_SD = 0.85
DRIFT_PERSISTENCE = 0.93
DRIFT_STEP_SD = 0.2
EPISODE_BASE_LOGIT = -4.9
EPISODE_RAMP_WEEKS = 8
#: Sleep and activity change before symptoms are reported.
SYMPTOMS_LAG_WEEKS = 4
OCCASION_SD = 0.3

#: Item thresholds of the graded response model: how hard "several days" is to endorse.
#: Their order follows item means of NHANES 2017-2018 (tiredness first, self-harm last).
PHQ9_FIRST_THRESHOLDS = np.array([0.45, 0.5, 0.1, -0.2, 0.6, 0.75, 0.75, 1.45, 2.0])
GAD7_FIRST_THRESHOLDS = np.array([0.15, 0.45, 0.25, 0.3, 0.9, 0.2, 0.8])
#: Distance of "more than half the days" and "nearly every day" from "several days".
THRESHOLD_STEPS = np.array([0.0, 1.0, 1.65])
DISCRIMINATION = 2.1
ITEM_SKIP_RATE = 0.01

WEEKS_BETWEEN_SURVEYS = 6
SURVEY_SKIP_RATE = 0.22
GAD7_RATE = 0.8

WEARER_SHARE = 0.65
CONSENT_SHARES = {"survey": 0.97, "wearable": 0.9, "emr": 0.85}
TRAINING_CONSENT_SHARE = 0.93
ETHNICITIES = ("white", "black", "hispanic", "asian", "other")
ETHNICITY_SHARES = (0.58, 0.14, 0.16, 0.08, 0.04)

ICD10 = "http://hl7.org/fhir/sid/icd-10-cm"
RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
SNOMED = "http://snomed.info/sct"


@dataclass(frozen=True)
class Block:
    """The latent state of a block of individuals: weekly severity and its drivers."""

    first: int
    start: date
    days: int
    severity: Floats  # [people, weeks], logit-like, 0 = the population's mean
    prodrome: Floats  # [people, weeks], 0 to 1, how far an episode has built up
    rng: np.random.Generator

    def person_ids(self, rows: NDArray[np.int64]) -> pl.Series:
        names = pl.Series([name_person(self.first + row) for row in range(BLOCK_SIZE)])
        return names.gather(rows)


def simulate_cohort(
    people: int, years: float, until: date, seed: int
) -> Iterator[dict[str, pl.DataFrame]]:
    """Yield the tables of the input contract, one block of individuals at a time.

    `until` is the last simulated day. The same arguments give the same rows.
    """
    days = int(years * 365)
    for first in range(0, people, BLOCK_SIZE):
        block = simulate_block(first, until - timedelta(days=days - 1), days, seed)
        tables = {
            "people": simulate_people(block),
            "surveys": simulate_surveys(block),
            "wearable_days": simulate_wearable_days(block),
            "emr_events": simulate_emr_events(block),
            "consents": simulate_consents(block),
        }
        # A whole block is always drawn, so a smaller cohort is a prefix of a larger one.
        beyond = name_person(people)
        yield {name: frame.filter(pl.col("person_id") < beyond) for name, frame in tables.items()}


def name_person(number: int) -> str:
    return f"sim-{number:09d}"


def simulate_block(first: int, start: date, days: int, seed: int) -> Block:
    """Draw the latent weekly severity of BLOCK_SIZE individuals from number `first`."""
    rng = np.random.default_rng([seed, first // BLOCK_SIZE])
    weeks = days // 7 + 2
    trait = rng.normal(0, TRAIT_SD, BLOCK_SIZE)
    drift = _simulate_drift(rng, weeks + BURN_IN_WEEKS)
    prodrome, lift = _simulate_episodes(rng, trait, drift)
    severity = trait[:, None] + drift + lift
    return Block(
        first=first,
        start=start,
        days=days,
        severity=severity[:, BURN_IN_WEEKS:],
        prodrome=prodrome[:, BURN_IN_WEEKS:],
        rng=rng,
    )


def _simulate_drift(rng: np.random.Generator, weeks: int) -> Floats:
    steps = rng.normal(0, DRIFT_STEP_SD, (BLOCK_SIZE, weeks))
    drift = np.zeros_like(steps)
    for week in range(1, weeks):
        drift[:, week] = DRIFT_PERSISTENCE * drift[:, week - 1] + steps[:, week]
    return drift


def _simulate_episodes(
    rng: np.random.Generator, trait: Floats, drift: Floats
) -> tuple[Floats, Floats]:
    """Return how far episodes have built up (0-1) and what they add to severity."""
    weeks = drift.shape[1]
    built = np.zeros_like(drift)
    lift = np.zeros_like(drift)
    remaining = np.zeros(BLOCK_SIZE, dtype=int)
    level = np.zeros(BLOCK_SIZE)
    size = np.zeros(BLOCK_SIZE)
    lag = SYMPTOMS_LAG_WEEKS
    for week in range(weeks):
        risk = _expit(EPISODE_BASE_LOGIT + 1.2 * trait + 1.5 * drift[:, week])
        starts = (remaining == 0) & (level < 0.2) & (rng.random(BLOCK_SIZE) < risk)
        remaining[starts] = rng.integers(10, 26, starts.sum())
        size[starts] = rng.uniform(1.0, 2.4, starts.sum())
        active = remaining > 0
        level = np.where(active, np.minimum(1, level + 1 / EPISODE_RAMP_WEEKS), level * 0.8)
        remaining = np.maximum(0, remaining - 1)
        built[:, week] = level
        lift[:, week] = size * built[:, max(0, week - lag)]
    return built, lift


def simulate_people(block: Block) -> pl.DataFrame:
    rng = block.rng
    age_days = rng.triangular(18, 32, 80, BLOCK_SIZE) * 365.25
    births = [block.start - timedelta(days=float(days)) for days in age_days]
    return pl.DataFrame(
        {
            "person_id": block.person_ids(np.arange(BLOCK_SIZE)),
            "birth_date": births,
            "sex": rng.choice(
                ["female", "male", "other", "unknown"], BLOCK_SIZE, p=[0.58, 0.4, 0.01, 0.01]
            ),
            "ethnicity": rng.choice(ETHNICITIES, BLOCK_SIZE, p=ETHNICITY_SHARES),
        }
    )


def simulate_surveys(block: Block) -> pl.DataFrame:
    """Answer PHQ-9 every six weeks or so, mostly with GAD-7 beside it."""
    person, day = _choose_survey_days(block)
    minutes = block.rng.integers(8 * 60, 20 * 60, len(day))
    occasions = pl.DataFrame(
        {
            "person_id": block.person_ids(person),
            "answered_at": _instants(block.start, day, minutes),
        }
    )
    severity = block.severity[person, day // 7] + block.rng.normal(0, OCCASION_SD, len(day))
    with_gad7 = block.rng.random(len(day)) < GAD7_RATE
    phq9 = _answer(block.rng, occasions, "PHQ-9", severity, PHQ9_FIRST_THRESHOLDS)
    gad7 = _answer(block.rng, occasions, "GAD-7", severity, GAD7_FIRST_THRESHOLDS)
    return pl.concat([phq9, gad7.filter(pl.Series(with_gad7))], how="diagonal").sort(
        "person_id", "answered_at", "instrument"
    )


def _answer(
    rng: np.random.Generator,
    occasions: pl.DataFrame,
    instrument: str,
    severity: Floats,
    thresholds: Floats,
) -> pl.DataFrame:
    answers = _answer_items(rng, severity, thresholds)
    items = pl.DataFrame(answers, schema=[f"item_{n + 1}" for n in range(len(thresholds))])
    skipped = rng.random(answers.shape) < ITEM_SKIP_RATE
    return occasions.with_columns(pl.lit(instrument).alias("instrument")).hstack(
        [
            pl.select(pl.when(pl.Series(~skipped[:, n])).then(item).cast(pl.Int8))
            .to_series()
            .alias(item.name)
            for n, item in enumerate(items)
        ]
    )


def _choose_survey_days(block: Block) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (row, day) of every answered questionnaire occasion."""
    rng = block.rng
    gap = WEEKS_BETWEEN_SURVEYS * 7
    slots = block.days // gap
    offset = rng.integers(0, gap, BLOCK_SIZE)
    jitter = rng.integers(-6, 7, (BLOCK_SIZE, slots))
    days = np.clip(offset[:, None] + gap * np.arange(slots) + jitter, 0, block.days - 1)
    # Who is unwell skips more often: missing answers are not missing at random.
    unwell = np.take_along_axis(block.severity, days // 7, axis=1)
    skip = SURVEY_SKIP_RATE * (1 + 0.35 * np.tanh(unwell))
    answered = rng.random((BLOCK_SIZE, slots)) > skip
    rows, slots_answered = np.nonzero(answered)
    return rows, days[rows, slots_answered]


def _answer_items(rng: np.random.Generator, severity: Floats, first: Floats) -> NDArray[np.int64]:
    """Draw answers 0-3 from the graded response model, [occasions, items]."""
    thresholds = first[None, :, None] + THRESHOLD_STEPS[None, None, :]
    at_least = _expit(DISCRIMINATION * (severity[:, None, None] - thresholds))
    draw = rng.random((len(severity), len(first), 1))
    return np.asarray((draw < at_least).sum(axis=2))


def simulate_wearable_days(block: Block) -> pl.DataFrame:
    """Draw worn days: levels and spreads as in LifeSnaps (Yfantidou et al. 2022)."""
    rng = block.rng
    wearer = rng.random(BLOCK_SIZE) < WEARER_SHARE
    severity = np.repeat(block.severity, 7, axis=1)[:, : block.days]
    prodrome = np.repeat(block.prodrome, 7, axis=1)[:, : block.days]
    worn_chance = _expit(1.3 - 0.35 * severity + rng.normal(0, 0.8, (BLOCK_SIZE, 1)))
    worn = wearer[:, None] & (rng.random(severity.shape) < worn_chance)
    person, day = np.nonzero(worn)
    state = _WearableState(rng, block, person, severity[worn], prodrome[worn])
    weekend = (day + block.start.weekday()) % 7 >= 5
    columns = {
        "steps": state.draw(8200, 2600, -0.28, 0.45, floor=200) * np.where(weekend, 0.9, 1.0),
        "active_minutes": state.draw(190, 60, -0.25, 0.6, floor=0),
        "sleep_minutes": state.draw(405, 38, -0.05, 1.35, floor=60, ceiling=840),
        "sleep_efficiency": state.draw(92.5, 2.4, -0.3, 1.1, floor=45, ceiling=100),
        "resting_heart_rate": state.draw(66, 6.5, 0.12, 0.25, floor=38, ceiling=110),
        "hrv_rmssd": state.draw(40, 14, -0.16, 0.45, floor=6, ceiling=160),
        "wear_minutes": state.draw(1180, 120, -0.1, 1.0, floor=300, ceiling=1440),
    }
    frame = pl.DataFrame(
        {
            "person_id": block.person_ids(person),
            "date": pl.Series(np.datetime64(block.start) + day).cast(pl.Date),
        }
        | {name: np.round(values, 1).astype(np.float32) for name, values in columns.items()}
    )
    return _lose_readings(rng, frame)


@dataclass(frozen=True)
class _WearableState:
    """Draws one channel for every worn day of a block."""

    rng: np.random.Generator
    block: Block
    person: NDArray[np.int64]
    severity: Floats
    prodrome: Floats

    def draw(
        self,
        mean: float,
        spread: float,
        effect: float,
        noise: float,
        floor: float,
        ceiling: float = np.inf,
    ) -> Floats:
        """`effect` and `noise` in units of `spread`, the spread between individuals.

        An episode that builds up also makes days more irregular, which is what windows of
        standard deviations can see before a total score does.
        """
        usual = self.rng.normal(mean, spread, BLOCK_SIZE)[self.person]
        sway = spread * effect * (self.severity + 2.5 * self.prodrome)
        irregular = spread * noise * (1 + 0.9 * self.prodrome)
        values = usual + sway + irregular * self.rng.normal(0, 1, len(self.person))
        return np.clip(values, floor, ceiling)


def _lose_readings(rng: np.random.Generator, frame: pl.DataFrame) -> pl.DataFrame:
    """Blank readings the device did not take: nights more often than steps (LifeSnaps)."""
    night_lost = rng.random(frame.height) < 0.25
    hrv_lost = night_lost | (rng.random(frame.height) < 0.3)
    night = ["sleep_minutes", "sleep_efficiency"]
    return frame.with_columns(
        pl.when(pl.Series(~night_lost)).then(pl.col(name)).alias(name) for name in night
    ).with_columns(pl.when(pl.Series(~hrv_lost)).then(pl.col("hrv_rmssd")).alias("hrv_rmssd"))


def simulate_emr_events(block: Block) -> pl.DataFrame:
    """Draw encounters, diagnoses and medications as weekly hazards that rise with severity."""
    kinds = [
        # kind, system, code, setting, log weekly hazard at severity 0, effect of severity
        ("encounter", SNOMED, "185347001", "outpatient", -3.2, 0.1),
        ("encounter", SNOMED, "50849002", "emergency", -5.6, 0.15),
        ("encounter", SNOMED, "32485007", "inpatient", -6.6, 0.15),
        ("encounter", SNOMED, "390906007", "psychiatric_outpatient", -3.3, 0.55),
        ("encounter", SNOMED, "4525004", "psychiatric_emergency", -7.6, 0.85),
        ("encounter", SNOMED, "305351004", "psychiatric_inpatient", -8.3, 0.95),
        ("diagnosis", ICD10, "F32.9", None, -5.4, 0.7),
        ("diagnosis", ICD10, "F33.1", None, -6.2, 0.8),
        ("diagnosis", ICD10, "F41.1", None, -5.6, 0.55),
        ("diagnosis", ICD10, "F10.20", None, -6.9, 0.45),
        ("diagnosis", ICD10, "I10", None, -6.0, 0.05),
        ("medication", RXNORM, "36437", None, -4.6, 0.6),  # sertraline
        ("medication", RXNORM, "321988", None, -5.0, 0.55),  # escitalopram
        ("medication", RXNORM, "51272", None, -6.6, 0.7),  # quetiapine
        ("medication", RXNORM, "6470", None, -6.0, 0.5),  # lorazepam
        ("medication", RXNORM, "29046", None, -5.2, 0.0),  # lisinopril
    ]
    frames = [_simulate_event_kind(block, *kind) for kind in kinds]
    return pl.concat(frames).sort("person_id", "started_at", "code")


def _simulate_event_kind(
    block: Block,
    kind: str,
    system: str,
    code: str,
    setting: str | None,
    log_hazard: float,
    effect: float,
) -> pl.DataFrame:
    rng = block.rng
    weeks = block.days // 7
    hazard = np.exp(log_hazard + effect * block.severity[:, :weeks])
    person, week = np.nonzero(rng.random(hazard.shape) < hazard)
    day = week * 7 + rng.integers(0, 7, len(week))
    started = _instants(block.start, day, rng.integers(0, 24 * 60, len(day)))
    lengths = {"medication": 60 * 24 * 60, "encounter": 60}
    lengths_by_setting = {"inpatient": 4 * 24 * 60, "psychiatric_inpatient": 11 * 24 * 60}
    minutes = lengths_by_setting.get(setting or "", lengths.get(kind, 0))
    return pl.DataFrame(
        {
            "person_id": block.person_ids(person),
            "kind": [kind] * len(day),
            "system": [system] * len(day),
            "code": [code] * len(day),
            "started_at": started,
            "setting": pl.Series([setting] * len(day), dtype=pl.String),
        }
    ).with_columns(
        (pl.col("started_at") + pl.duration(minutes=minutes) if minutes else pl.lit(None))
        .cast(pl.Datetime("us", "UTC"))
        .alias("ended_at")
    )


def simulate_consents(block: Block) -> pl.DataFrame:
    """Draw what each individual agreed to; some refuse types, some consents have expired."""
    rng = block.rng
    agreed = {name: rng.random(BLOCK_SIZE) < share for name, share in CONSENT_SHARES.items()}
    training = rng.random(BLOCK_SIZE) < TRAINING_CONSENT_SHARE
    expired = rng.random(BLOCK_SIZE) < 0.02
    granted = datetime(block.start.year, block.start.month, block.start.day, tzinfo=UTC)
    end = granted + timedelta(days=block.days)
    rows = []
    for row, person_id in enumerate(block.person_ids(np.arange(BLOCK_SIZE))):
        data_types = [name for name, yes in agreed.items() if yes[row]]
        if not data_types:
            continue
        rows.append(
            {
                "person_id": person_id,
                "data_types": data_types,
                "purposes": ["training", "screening"] if training[row] else ["screening"],
                "granted_at": granted,
                "expires_at": end + timedelta(days=-10 if expired[row] else 365),
            }
        )
    return pl.DataFrame(rows)


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


def _instants(start: date, day: NDArray[np.int64], minutes: NDArray[np.int64]) -> pl.Series:
    base = np.datetime64(start, "us")
    offset = day.astype("timedelta64[D]") + minutes.astype("timedelta64[m]")
    return pl.Series(base + offset).dt.replace_time_zone("UTC").cast(pl.Datetime("us", "UTC"))


def _expit(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)))


def main(
    folder: Annotated[Path, typer.Argument(help="Where the drop is written.")],
    people: Annotated[int, typer.Option(min=1, help="Individuals to simulate.")] = DEFAULT_PEOPLE,
    years: Annotated[float, typer.Option(min=0.5, help="Years of history.")] = DEFAULT_YEARS,
    until: Annotated[
        datetime | None, typer.Option(help="Last simulated day (default: yesterday).")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same cohort.")] = 7,
    fhir: Annotated[bool, typer.Option("--fhir", help="FHIR R4 NDJSON, not Parquet.")] = False,
) -> None:
    """Write a simulated cohort as a drop of the input contract."""
    last_day = until.date() if until else datetime.now(UTC).date() - timedelta(days=1)
    write = write_fhir_drop if fhir else write_drop
    counts = write(simulate_cohort(people, years, last_day, seed), folder)
    for name, count in counts.items():
        typer.echo(f"{name:15} {count:>12,} rows")


if __name__ == "__main__":
    typer.run(main)
