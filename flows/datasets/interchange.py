"""The lake in the Medical Event Data Standard (MEDS 0.4): one row for each measurement of a person.

Source: github.com/Medical-Event-Data-Standard/meds. Others' models can be tried on the same people
and labels; nothing is in it that the person does not consent to for training.
"""

from collections.abc import Iterator
from datetime import datetime

import meds
import polars as pl

from feature_repo.instruments import INSTRUMENTS, ITEM_COLUMNS
from feature_repo.stored_views import JOIN_KEY
from flows.datasets.labels import LABEL, WORSENED
from flows.datasets.training_set import place_individuals
from flows.sources.contract import WEARABLE_LIMITS

SUBJECT = "subject_id"
COLUMNS = (SUBJECT, "time", "code", "numeric_value")
#: Part of `place_individuals` -> split: those stopped early and calibrated on tune.
SPLITS = {0: meds.held_out_split, 1: meds.tuning_split, 2: meds.tuning_split, 3: meds.train_split}
LABELS = (LABEL, WORSENED)


class SubjectCollisionError(RuntimeError):
    """Two pseudonyms have one subject id; the export would make one person of them."""


def number_subjects(individuals: pl.Series) -> pl.DataFrame:
    """Return (anonymized_id, subject_id): the first 63 bits of each pseudonym.

    Raises SubjectCollisionError where two pseudonyms give one number.
    """
    distinct = individuals.unique()
    numbers = [int(pseudonym[:16], 16) >> 1 for pseudonym in distinct]
    if len(set(numbers)) < len(numbers):
        raise SubjectCollisionError("two pseudonyms begin with the same 63 bits")
    return pl.DataFrame({JOIN_KEY: distinct, SUBJECT: pl.Series(numbers, dtype=pl.Int64)})


def list_events(
    people: pl.DataFrame, surveys: pl.DataFrame, days: pl.DataFrame, events: pl.DataFrame
) -> pl.DataFrame:
    """Return a row for each measurement, by anonymized_id; rows of one person in order of time.

    Static ones have no time and come first. A wearable day is known when it is over.
    """
    parts = [*_list_people(people), *_list_surveys(surveys), *_list_days(days), _list_care(events)]
    return pl.concat(parts).sort(JOIN_KEY, "time", "code", nulls_last=False)


def _list_people(people: pl.DataFrame) -> Iterator[pl.DataFrame]:
    birth = people.filter(pl.col("birth_year").is_not_null())
    born = pl.datetime("birth_year", 1, 1, time_unit="us")
    yield birth.select(*_make_row(born, pl.lit(meds.birth_code)))
    for column, name in (("sex", "SEX"), ("ethnicity", "ETHNICITY")):
        stated = people.filter(pl.col(column).is_not_null())
        code = pl.format("{}//{}", pl.lit(name), column)
        yield stated.select(*_make_row(pl.lit(None, pl.Datetime("us")), code))


def _list_surveys(surveys: pl.DataFrame) -> Iterator[pl.DataFrame]:
    for instrument in INSTRUMENTS.values():
        own = surveys.filter(pl.col("instrument") == instrument.name)
        for column in (*ITEM_COLUMNS[: instrument.item_count], "total"):
            answered = own.filter(pl.col(column).is_not_null())
            code = pl.lit(name_answer(instrument.name, column))
            yield answered.select(*_make_row(_read_time("answered_at"), code, pl.col(column)))


def name_answer(instrument: str, column: str) -> str:
    """Return the code of an item or total: its LOINC code, else the instrument's own name."""
    definition = INSTRUMENTS[instrument]
    if column == "total":
        return (
            f"LOINC/{definition.total_codes[0][1]}"
            if definition.total_codes
            else f"{instrument}//total"
        )
    number = ITEM_COLUMNS.index(column)
    own = definition.short_form_of is None and definition.item_loincs
    return f"LOINC/{definition.item_loincs[number]}" if own else f"{instrument}//{column}"


def _list_days(days: pl.DataFrame) -> Iterator[pl.DataFrame]:
    over = pl.col("date").cast(pl.Datetime("us")) + pl.duration(days=1, microseconds=-1)
    for channel in WEARABLE_LIMITS:
        measured = days.filter(pl.col(channel).is_not_null())
        yield measured.select(*_make_row(over, pl.lit(f"WEARABLE//{channel}"), pl.col(channel)))


def _list_care(events: pl.DataFrame) -> pl.DataFrame:
    code = pl.format("{}//{}//{}", pl.col("kind").str.to_uppercase(), "system", "code")
    setting = pl.col("setting")
    named = pl.when(setting.is_null()).then(code).otherwise(pl.format("{}//{}", code, setting))
    return events.select(*_make_row(_read_time("started_at"), named))


def _read_time(column: str) -> pl.Expr:
    """Return an instant as MEDS writes it: UTC without a zone."""
    return pl.col(column).dt.convert_time_zone("UTC").dt.replace_time_zone(None)


def _make_row(time: pl.Expr, code: pl.Expr, value: pl.Expr | None = None) -> tuple[pl.Expr, ...]:
    measured = pl.lit(None) if value is None else value
    return (
        pl.col(JOIN_KEY),
        time.cast(pl.Datetime("us")).alias("time"),
        code.alias("code"),
        measured.cast(pl.Float32).alias("numeric_value"),
    )


def split_subjects(subjects: pl.DataFrame) -> pl.DataFrame:
    """Return (subject_id, split), the parts that training gives these individuals."""
    parts = place_individuals(subjects[JOIN_KEY])
    named = pl.Series("split", [SPLITS[int(part)] for part in parts], dtype=pl.String)
    return subjects.select(SUBJECT).with_columns(named).sort(SUBJECT)


def make_labels(labelled: pl.DataFrame, subjects: pl.DataFrame, outcome: str) -> pl.DataFrame:
    """Return MEDS labels of an outcome; data up to and including prediction_time may be used."""
    settled = labelled.filter(pl.col(outcome).is_not_null())
    time = _read_time("index_time").alias("prediction_time")
    return (
        settled.join(subjects, on=JOIN_KEY)
        .select(SUBJECT, time, pl.col(outcome).alias("boolean_value"))
        .sort(SUBJECT, "prediction_time")
    )


def describe_codes(codes: set[str]) -> pl.DataFrame:
    """Return the code metadata: every code that the data hold, with what it means if known."""
    texts = dict(_describe_answers())
    listed = sorted(codes)
    descriptions = [texts.get(code) for code in listed]
    return pl.DataFrame(
        {"code": listed, "description": descriptions, "parent_codes": [None] * len(listed)},
        schema={"code": pl.String, "description": pl.String, "parent_codes": pl.List(pl.String)},
    )


def _describe_answers() -> Iterator[tuple[str, str]]:
    for instrument in INSTRUMENTS.values():
        for number, column in enumerate(ITEM_COLUMNS[: instrument.item_count], 1):
            most = instrument.max_answer
            text = f"{instrument.name} item {number}, 0 to {most}"
            yield name_answer(instrument.name, column), text
        text = f"{instrument.name} total, 0 to {instrument.max_total}"
        yield name_answer(instrument.name, "total"), text
    for channel, (_, _, unit) in WEARABLE_LIMITS.items():
        yield f"WEARABLE//{channel}", f"{channel.replace('_', ' ')} of a day, {unit}"
    yield meds.birth_code, "first day of the year of birth"


def describe_dataset(version: str, created_at: datetime) -> dict[str, str]:
    return {
        "dataset_name": "MHRAS consenting cohort",
        "dataset_version": version,
        "etl_name": "mhras meds-export",
        "meds_version": "0.4.1",
        "created_at": created_at.isoformat(),
    }
