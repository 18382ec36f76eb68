"""Which files of a drop are exports of wearables, and how each is read."""

import csv
import io
import json
import posixpath
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any
from xml.etree import ElementTree

from flows.sources.batch import Batch, UnreadableFileError
from flows.sources.contract import DAY_SPAN, DAY_TOTAL
from flows.sources.drop import SourceFile, open_file
from flows.sources.pseudonymise import PersonKey
from flows.sources.unpacking import check_member
from flows.sources.wearable_exports.apple import read_apple
from flows.sources.wearable_exports.places import find_owner
from flows.sources.wearable_exports.readings import Reading, make_batch
from flows.sources.wearable_exports.shapes import find_shape

BATCH_READINGS = 50_000
OTHER = "record of a wearable export that no channel is made of"

#: Fitbit's files of values by the minute, which name their channel only in the file's name.
FITBIT_MINUTES = re.compile(r"(steps|very_active_minutes|moderately_active_minutes)-[\d-]+\.json")
FITBIT_RESTING = re.compile(r"resting_heart_rate-[\d-]+\.json")


def read_export(file: SourceFile, key: PersonKey) -> Iterator[Batch]:
    """Yield the readings of an export as parts of wearable days.

    `records` counts the export's records; those of which no channel is made are ignored by kind.
    Raises UnreadableFileError for a file that is damaged.
    """
    person = find_owner(file.url)
    try:
        if file.reader == "apple":
            yield from _read_apple(file, person, key)
        elif file.reader == "csv":
            yield _gather(_iterate_csv(file), person, key)
        else:
            yield _read_json(file, person, key)
    except (ElementTree.ParseError, zipfile.BadZipFile) as error:
        raise UnreadableFileError(f"{file.label}: is not a whole export") from error


def _read_apple(file: SourceFile, person: str, key: PersonKey) -> Iterator[Batch]:
    ignored: Counter[str] = Counter()
    readings: list[Reading] = []
    read = 0
    with open_file(file) as stream, _open_export(stream, file) as export:
        for number, reading in read_apple(export, person, ignored):
            if reading:
                readings.append(reading)
            if len(readings) >= BATCH_READINGS:
                yield _close(readings, number - read, ignored, key)
                read, readings, ignored = number, [], Counter()
        yield _close(readings, len(readings) + ignored.total(), ignored, key)


def _open_export(stream: Any, file: SourceFile) -> IO[bytes]:
    if not file.format.endswith("zip"):
        return io.BufferedReader(stream) if not hasattr(stream, "read1") else stream
    archive = zipfile.ZipFile(stream)
    names = [name for name in archive.namelist() if posixpath.basename(name) == "export.xml"]
    if not names:
        raise UnreadableFileError(f"{file.label}: holds no export.xml of Apple Health")
    return archive.open(check_member(archive, names[0], file.label))


def _close(readings: list[Reading], records: int, ignored: Counter[str], key: PersonKey) -> Batch:
    batch = make_batch(readings, records, key)
    batch.ignored.update(ignored)
    return batch


def _read_json(file: SourceFile, person: str, key: PersonKey) -> Batch:
    with open_file(file) as stream:
        try:
            document = json.load(stream)
        except (ValueError, RecursionError):
            raise UnreadableFileError(f"{file.label}: is not complete JSON in UTF-8") from None
    name = posixpath.basename(file.url)
    records = document.get("data", []) if isinstance(document, dict) else document
    records = [record if isinstance(record, dict) else {} for record in _as_list(records)]
    minutes = FITBIT_MINUTES.fullmatch(name)
    if minutes:
        return _sum_minutes(records, minutes[1], person, key)
    if FITBIT_RESTING.fullmatch(name):
        records = [_flatten_resting(record) for record in records]
    return _gather(records, person, key)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _flatten_resting(record: dict[str, Any]) -> dict[str, Any]:
    value = record.get("value")
    inner = value if isinstance(value, dict) else {}
    return {"date": inner.get("date"), "restingHeartRate": inner.get("value")}


def _sum_minutes(records: list[dict[str, Any]], kind: str, person: str, key: PersonKey) -> Batch:
    """Return Fitbit's values by the minute as one a day, the day as the file writes it."""
    sums: dict[str, float] = {}
    for record in records:
        try:
            month, day, year = str(record["dateTime"])[:8].split("/")
            date = f"20{year}-{month}-{day}"
            sums[date] = sums.get(date, 0.0) + float(record["value"])
        except (KeyError, ValueError):
            continue
    channel = "steps" if kind == "steps" else "active_minutes"
    part = DAY_TOTAL if kind == "steps" else DAY_SPAN
    readings = [
        Reading(person, date, channel, value, "fitbit", f"{kind} {date}", number, part=part)
        for number, (date, value) in enumerate(sums.items(), 1)
    ]
    # A day is one record here: its minutes are parts of it that nothing else is made of.
    return make_batch(readings, len(readings), key)


def _iterate_csv(file: SourceFile) -> Iterator[dict[str, Any]]:
    with open_file(file) as stream:
        for row in csv.DictReader(io.TextIOWrapper(stream, encoding="utf-8-sig")):
            yield {str(name).removeprefix("value."): value for name, value in row.items()}


def _gather(records: Any, owner: str, key: PersonKey) -> Batch:
    readings: list[Reading] = []
    count = split = 0
    ignored: Counter[str] = Counter()
    for count, record in enumerate(records, 1):
        shape = find_shape(record)
        # A RADAR-base topic names the person in every row.
        person = str(record.get("key.userId") or owner)
        given = list(shape.read(record, person, count)) if shape else []
        readings += given
        split += max(0, len(given) - 1)
        if not given:
            ignored[OTHER] += 1
    batch = _close(readings, count, ignored, key)
    batch.split = split
    return batch
