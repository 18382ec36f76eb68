"""FHIR files as rows: Bulk Data NDJSON, Bundles, single resources, and zips of them.

Every record of a file is counted once: it becomes a row (or part of one), is rejected with
its reason, or is ignored by kind. Not read as fhir.resources models: those refuse a whole
resource for an element that nobody here looks at.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import polars as pl

from feature_repo.fhir_surveys import (
    is_survey_observation,
    map_questionnaire_response,
    map_survey_observation,
)
from feature_repo.fhir_values import (
    Context,
    IgnoredResourceError,
    RejectedResourceError,
    Resource,
    find_loincs,
    find_person,
)
from feature_repo.instruments import ITEM_COLUMNS
from flows.sources.batch import UNREADABLE, Batch, Rejected
from flows.sources.clean import ORIGIN, PARSERS
from flows.sources.contract import INSTANT, WEARABLE_CHANNELS
from flows.sources.drop import KNOWN_TYPES, SourceFile
from flows.sources.fhir_consents import UnreadableConsentError, map_consent
from flows.sources.fhir_documents import Record, iterate_records
from flows.sources.fhir_events import map_condition, map_encounter, map_medication
from flows.sources.fhir_people import DEATH, is_deceased, map_patient, take_back_death
from flows.sources.fhir_wearables import find_channel, map_wearable_observation
from flows.sources.pseudonymise import PersonKey
from flows.sources.versions import (
    WITHDRAWN,
    Retraction,
    describe_version,
    name_resource,
    retract,
)

BATCH_RECORDS = 20_000

#: Tables that one kind of resource belongs to, also when it is rejected.
MAPPERS: dict[str, tuple[str, Callable[[Resource, Context], Resource]]] = {
    "Patient": ("people", map_patient),
    "Condition": ("emr_events", map_condition),
    "Encounter": ("emr_events", map_encounter),
    **dict.fromkeys(
        (
            "MedicationRequest",
            "MedicationStatement",
            "MedicationUsage",
            "MedicationDispense",
            "MedicationAdministration",
        ),
        ("emr_events", map_medication),
    ),
}

#: What mappers give as something other than text.
TYPED: dict[str, Any] = {
    "row_number": pl.Int64,
    "data_types": pl.List(pl.String),
    "purposes": pl.List(pl.String),
    "only_before": pl.Boolean,
    "replaces": pl.Boolean,
    **dict.fromkeys((*ITEM_COLUMNS, "total", *WEARABLE_CHANNELS), pl.Float64),
    **{name: kind for name, kind in ORIGIN.items() if kind not in (pl.String, INSTANT)},
}

#: What a column of text may hold as it is.
TEXT = frozenset((str, type(None)))

UNKNOWN_CLASS = "Encounter of a class that is not known: its setting stays open"
DECEASED = "people who have died: they are not screened"


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
    needles = (b'"Consent"', b"Consent/", b'"Patient"') if consents else ()
    for record in iterate_records(file, context, needles):
        if _is_about_consent(record) is consents:
            collector.add(record)
        elif consents and record.resource.get("resourceType") == "Patient":
            collector.note_death(record)
        if collector.batch.records >= BATCH_RECORDS:
            yield collector.finish()
    yield collector.finish()


def _is_about_consent(record: Record) -> bool:
    deleted = record.deleted or ""
    return record.resource.get("resourceType") == "Consent" or deleted.startswith("Consent/")


class _Collector:
    """Gathers mapped rows into a batch, pseudonyms in place of identifiers."""

    def __init__(self, key: PersonKey) -> None:
        self._key = key
        self._start()

    def _start(self) -> None:
        self.batch = Batch(records=0)
        self._rows: dict[str, list[Resource]] = {}
        self._people: dict[str | None, str | None] = {}
        self._devices: dict[str, str] = {}

    def add(self, record: Record) -> None:
        self.batch.records += 1
        self.batch.notes.extend(record.notes)
        if record.deleted:
            self.batch.ignored["deleted (Bulk Data)"] += 1
            self._retract(Retraction(record.deleted, None, record.at, WITHDRAWN), record.context)
            return
        loincs = _find_observed_loincs(record.resource)
        table = _name_table(record.resource, loincs)
        try:
            rows = _map_record(record, table, loincs)
        except RejectedResourceError as error:
            self._reject(record, table, error)
        except IgnoredResourceError as error:
            self.batch.ignored[str(error)] += 1
            if error.retracts:
                person = _find_known_person(record)
                self._retract(retract(record.resource, person), record.context)
        else:
            self._keep(record, rows)

    def _reject(self, record: Record, table: str | None, error: RejectedResourceError) -> None:
        self.batch.rejected.append(Rejected(table or UNREADABLE, record.number, str(error)))
        if isinstance(error, UnreadableConsentError) and error.suspends:
            self.batch.split += 1
            self._add_row("withdrawals", error.suspends, record)

    def _keep(self, record: Record, rows: list[tuple[str, Resource]]) -> None:
        self.batch.split += len(rows) - 1
        for table, row in rows:
            self._add_row(table, row, record)

    def note_death(self, record: Record) -> None:
        """Note that a Patient has died, or that an earlier note of it was wrong."""
        patient = record.resource
        name = name_resource(patient)
        if name is None:
            return
        if not is_deceased(patient):
            alive = take_back_death(patient)
            if alive:
                self.batch.alive.append(self._describe_retraction(alive, record.context))
            return
        self.batch.noted[DECEASED] += 1
        person = record.context.replaced.get(patient["id"], patient["id"])
        self.batch.deaths.append(
            describe_version(patient)
            | {
                "source_id": self._key.hide_reference(f"{DEATH}{name}"),
                "anonymized_id": self._key.pseudonymise(person),
            }
        )

    def _add_row(self, table: str, row: Resource, record: Record) -> None:
        person, link, device = row["person_id"], row.get("link"), row.get("device")
        person = record.context.replaced.get(person, person)
        source = name_resource(record.resource) or json.dumps(record.resource, sort_keys=True)
        row |= describe_version(record.resource)
        row["row_number"] = record.number
        row["source_id"] = self._key.hide_reference(source)
        row["link"] = self._key.hide_reference(str(link)) if link else None
        row["device"] = self._hide_device(str(device)) if device else None
        if members := row.get("members"):
            row["members"] = ";".join(sorted(map(self._key.hide_reference, members)))
        row["anonymized_id"] = self._hide_person(person)
        if table == "emr_events" and row["kind"] == "encounter" and row["setting"] is None:
            self.batch.noted[UNKNOWN_CLASS] += 1
        self._rows.setdefault(table, []).append(row)

    def _hide_device(self, device: str) -> str:
        if device not in self._devices:
            self._devices[device] = self._key.hide_reference(device)
        return self._devices[device]

    def _hide_person(self, person: str | None) -> str | None:
        if person not in self._people:
            self._people[person] = self._key.pseudonymise(person)
        return self._people[person]

    def _retract(self, retraction: Retraction | None, context: Context) -> None:
        if retraction:
            self.batch.retractions.append(self._describe_retraction(retraction, context))

    def _describe_retraction(self, retraction: Retraction, context: Context) -> Resource:
        person = retraction.person_id
        person = context.replaced.get(person, person) if person else None
        return {
            "source_id": self._key.hide_reference(retraction.name),
            "anonymized_id": self._key.pseudonymise(person),
            "version_number": retraction.version_number,
            "version_at": retraction.version_at,
            "version_rank": retraction.version_rank,
        }

    def finish(self) -> Batch:
        batch = self.batch
        batch.rows = {
            table: self._key.add_key(_build_frame(table, rows))
            for table, rows in self._rows.items()
        }
        self._start()
        return batch


def _find_known_person(record: Record) -> str | None:
    try:
        return find_person(record.resource, record.context)
    except RejectedResourceError:
        return None


def _build_frame(table: str, rows: list[Resource]) -> pl.DataFrame:
    """Return rows as columns; a value of the wrong JSON type becomes text for the checks."""
    names = [*PARSERS[table], *(name for name in ORIGIN if name not in ("key_id", "bucket"))]
    present = set().union(*rows)
    return pl.DataFrame(_build_column(name, rows, name in present) for name in names)


def _build_column(name: str, rows: list[Resource], is_said: bool) -> pl.Series:
    dtype = TYPED.get(name, pl.String)
    if not is_said:
        return pl.Series(name, [None], dtype=dtype).new_from_index(0, len(rows))
    values = [row.get(name) for row in rows]
    if dtype == pl.String and not TEXT.issuperset(map(type, values)):
        values = [_write_text(value) for value in values]
    return pl.Series(name, values, dtype=dtype)


def _write_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _find_observed_loincs(resource: Resource) -> list[str]:
    is_observation = resource.get("resourceType") == "Observation"
    return find_loincs(resource.get("code")) if is_observation else []


def _name_table(resource: Resource, loincs: list[str]) -> str | None:
    """Return the contract's table for a resource, None for one that it has no use for."""
    kind = resource.get("resourceType")
    if kind in MAPPERS:
        return MAPPERS[kind][0]
    if kind == "Observation":
        if is_survey_observation(loincs):
            return "surveys"
        return "wearable_days" if find_channel(resource, loincs) else None
    return {"QuestionnaireResponse": "surveys", "Consent": "consents"}.get(str(kind))


def _map_record(record: Record, table: str | None, loincs: list[str]) -> list[tuple[str, Resource]]:
    if record.problem:
        raise RejectedResourceError(record.problem)
    resource, context = record.resource, record.context
    kind = str(resource["resourceType"])
    if table is None:
        raise IgnoredResourceError(_describe_kind(resource))
    if kind in MAPPERS:
        return [(table, MAPPERS[kind][1](resource, context))]
    if kind == "Consent":
        return map_consent(resource, context)
    if kind == "QuestionnaireResponse":
        return [(table, row) for row in map_questionnaire_response(resource, context)]
    if table == "surveys":
        return [(table, map_survey_observation(resource, context))]
    loinc = find_channel(resource, loincs)
    return [(table, map_wearable_observation(resource, str(loinc), context))]


def _describe_kind(resource: Resource) -> str:
    """Return the kind an unused resource is counted under: its type, never its content."""
    kind = resource["resourceType"]
    safe_kind = kind if kind in KNOWN_TYPES else "unknown"
    return "Observation with another code" if safe_kind == "Observation" else safe_kind
