"""FHIR R4 files: Bulk Data NDJSON, Bundles, single resources, and zips of them.

Every record of a file is counted once: it becomes a row (or part of one), is rejected with
its reason, or is ignored by kind. Not read as fhir.resources models: those refuse a whole
resource for an element that nobody here looks at.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import polars as pl

from flows.sources.batch import UNREADABLE, Batch, Rejected, UnreadableFileError
from flows.sources.clean import ORIGIN, PARSERS
from flows.sources.contract import ITEM_COLUMNS, WEARABLE_CHANNELS
from flows.sources.drop import SourceFile, open_members
from flows.sources.fhir_events import (
    map_condition,
    map_encounter,
    map_medication_request,
    read_medication,
)
from flows.sources.fhir_people import map_consent, map_patient
from flows.sources.fhir_surveys import (
    is_survey_observation,
    map_questionnaire_response,
    map_survey_observation,
)
from flows.sources.fhir_values import (
    Context,
    IgnoredResourceError,
    RejectedResourceError,
    Resource,
    as_list,
    as_object,
    find_loincs,
)
from flows.sources.fhir_wearables import find_channel, map_wearable_observation
from flows.sources.pseudonymise import PersonKey

BATCH_RECORDS = 20_000

#: Tables that one kind of resource belongs to, also when it is rejected.
MAPPERS: dict[str, tuple[str, Callable[[Resource, Context], Resource]]] = {
    "Patient": ("people", map_patient),
    "Condition": ("emr_events", map_condition),
    "MedicationRequest": ("emr_events", map_medication_request),
    "Encounter": ("emr_events", map_encounter),
}

#: What mappers give as something other than text.
TYPED: dict[str, Any] = {
    "row_number": pl.Int64,
    "data_types": pl.List(pl.String),
    "purposes": pl.List(pl.String),
    **dict.fromkeys((*ITEM_COLUMNS, *WEARABLE_CHANNELS), pl.Float64),
}


@dataclass(frozen=True)
class Record:
    """One resource of a file, or what could not be parsed as one."""

    number: int
    resource: Resource
    context: Context
    problem: str | None = None


def read_fhir(
    file: SourceFile, key: PersonKey, context: Context, consents: bool
) -> Iterator[Batch]:
    """Yield the resources of a file as rows: its Consents, or everything but them.

    Consents are read first, because they decide which of the others may land.
    `row_number` is the line of an NDJSON file and the entry of a Bundle, counting from 1;
    in a zip, of all its files one after another. Raises UnreadableFileError for a damaged
    archive and for JSON that is incomplete.
    """
    collector = _Collector(key)
    for record in _iterate_records(file, context, needle=b'"Consent"' if consents else b""):
        if (record.resource.get("resourceType") == "Consent") is consents:
            collector.add(record)
        if collector.batch.records >= BATCH_RECORDS:
            yield collector.finish()
    yield collector.finish()


def find_medications(files: list[SourceFile]) -> Context:
    """Return a context with all Medications of these files; unreadable files are passed over."""
    context = Context()
    for file in files:
        try:
            _collect_medications(file, context)
        except UnreadableFileError:
            # Reading the file for its rows meets the same error, and reports it.
            continue
    return context


def _collect_medications(file: SourceFile, context: Context) -> None:
    for record in _iterate_records(file, context, needle=b'"Medication"'):
        if record.resource.get("resourceType") == "Medication" and record.resource.get("id"):
            name = f"Medication/{record.resource['id']}"
            context.medications[name] = read_medication(record.resource)


class _Collector:
    """Gathers mapped rows into a batch, pseudonyms in place of identifiers."""

    def __init__(self, key: PersonKey) -> None:
        self._key = key
        self._start()

    def _start(self) -> None:
        self.batch = Batch(records=0)
        self._rows: dict[str, list[Resource]] = {}

    def add(self, record: Record) -> None:
        self.batch.records += 1
        table = name_table(record.resource)
        try:
            rows = _map_record(record, table)
        except RejectedResourceError as error:
            rejected = Rejected(table or UNREADABLE, record.number, str(error))
            self.batch.rejected.append(rejected)
        except IgnoredResourceError as error:
            self.batch.ignored[str(error)] += 1
        else:
            self._keep(record.number, rows)

    def _keep(self, number: int, rows: list[tuple[str, Resource]]) -> None:
        self.batch.split += len(rows) - 1
        for table, row in rows:
            row["anonymized_id"] = self._key.pseudonymise(row.pop("person_id"))
            self._rows.setdefault(table, []).append(row | {"row_number": number})

    def finish(self) -> Batch:
        batch = self.batch
        batch.rows = {
            table: self._key.add_key(_build_frame(table, rows))
            for table, rows in self._rows.items()
        }
        self._start()
        return batch


def _build_frame(table: str, rows: list[Resource]) -> pl.DataFrame:
    """Return rows as columns; a value of the wrong JSON type becomes text for the checks."""
    names = [*PARSERS[table], *(name for name in ORIGIN if name not in ("key_id", "bucket"))]
    return pl.DataFrame(_build_column(name, [row.get(name) for row in rows]) for name in names)


def _build_column(name: str, values: list[Any]) -> pl.Series:
    dtype = TYPED.get(name, pl.String)
    if dtype == pl.String:
        values = [_write_text(value) for value in values]
    return pl.Series(name, values, dtype=dtype)


def _write_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def name_table(resource: Resource) -> str | None:
    """Return the contract's table for a resource, None for one that it has no use for."""
    kind = resource.get("resourceType")
    if kind in MAPPERS:
        return MAPPERS[kind][0]
    if kind == "Observation":
        loincs = find_loincs(resource.get("code"))
        if is_survey_observation(loincs):
            return "surveys"
        return "wearable_days" if find_channel(resource, loincs) else None
    return {"QuestionnaireResponse": "surveys", "Consent": "consents"}.get(str(kind))


def _map_record(record: Record, table: str | None) -> list[tuple[str, Resource]]:
    if record.problem:
        raise RejectedResourceError(record.problem)
    resource, context = record.resource, record.context
    kind = str(resource["resourceType"])
    if table is None:
        raise IgnoredResourceError(_describe_kind(resource))
    if kind in MAPPERS:
        return [(table, MAPPERS[kind][1](resource, context))]
    if kind == "Consent":
        return [map_consent(resource, context)]
    if kind == "QuestionnaireResponse":
        return [(table, row) for row in map_questionnaire_response(resource, context)]
    if table == "surveys":
        return [(table, map_survey_observation(resource, context))]
    loinc = find_channel(resource, find_loincs(resource.get("code")))
    return [(table, map_wearable_observation(resource, str(loinc), context))]


def _describe_kind(resource: Resource) -> str:
    """Return the kind an unused resource is counted under: its type, never its content."""
    kind = resource["resourceType"]
    known = kind if kind.isascii() and kind.isalpha() and len(kind) < 40 else "unknown"
    return "Observation with another code" if known == "Observation" else known


def _iterate_records(file: SourceFile, context: Context, needle: bytes = b"") -> Iterator[Record]:
    """Yield the records of a file; of those without `needle` in their text none."""
    first = 1
    with open_members(file) as members:
        for format_, stream in members:
            reader = _read_lines if format_ == "ndjson" else _read_document
            last = first - 1
            for record in reader(file, stream, context, needle, first):
                last = record.number
                yield record
            first = last + 1


def _read_lines(
    file: SourceFile, stream: IO[bytes], context: Context, needle: bytes, first: int
) -> Iterator[Record]:
    for number, line in enumerate(stream, first):
        if line.strip() and needle in line:
            yield _parse_line(number, line, context)


def _parse_line(number: int, line: bytes, context: Context) -> Record:
    try:
        resource = json.loads(line)
    except UnicodeDecodeError:
        return Record(number, {}, context, "line: is not UTF-8")
    except ValueError:
        return Record(number, {}, context, "line: is not a complete JSON object")
    return _check_resource(number, resource, context)


def _check_resource(number: int, resource: Any, context: Context) -> Record:
    if not isinstance(as_object(resource).get("resourceType"), str):
        return Record(number, {}, context, "resourceType: is missing, so it is no FHIR resource")
    return Record(number, resource, context)


def _read_document(
    file: SourceFile, stream: IO[bytes], context: Context, needle: bytes, first: int
) -> Iterator[Record]:
    content = stream.read()
    if needle not in content:
        return
    try:
        document = json.loads(content)
    except ValueError:
        raise UnreadableFileError(f"{file.label}: is not complete JSON in UTF-8") from None
    if as_object(document).get("resourceType") != "Bundle":
        yield _check_resource(first, document, context)
        return
    entries = [as_object(entry) for entry in as_list(document.get("entry"))]
    context = Context(_map_full_urls(entries), context.medications)
    for number, entry in enumerate(entries, first):
        yield _check_resource(number, entry.get("resource"), context)


def _map_full_urls(entries: list[Resource]) -> dict[str, str]:
    named = [(entry.get("fullUrl"), as_object(entry.get("resource"))) for entry in entries]
    return {
        url: f"{resource['resourceType']}/{resource['id']}"
        for url, resource in named
        if isinstance(url, str) and resource.get("resourceType") and resource.get("id")
    }
