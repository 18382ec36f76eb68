"""What is gathered from all FHIR files before any is read: definitions, links, pages."""

import re

from feature_repo.fhir_surveys import read_form
from feature_repo.fhir_values import Context, Resource, as_list, as_object, name_identifier
from flows.sources.batch import UnreadableFileError
from flows.sources.drop import SourceFile
from flows.sources.fhir_documents import Record, iterate_records, iterate_texts
from flows.sources.fhir_events import read_medication
from flows.sources.fhir_people import read_links

#: Texts without which a line holds nothing to gather. Patients are read for their identifiers
#: only where a record names its person by one.
NEEDLES = (b'"Medication"', b'"Questionnaire"', b'"replaced-by"', b'"replaces"', b'"searchset"')
BY_IDENTIFIER = re.compile(rb'"(?:subject|patient)"\s*:\s*\{[^{}]*"identifier"|"#')
#: Without these the pattern, which is slow to search, is not in a text.
SIGNS = (b'"identifier"', b'"#')


def gather_context(files: list[SourceFile]) -> Context:
    """Return what other resources need of these files; unreadable files are passed over."""
    context = Context()
    needles = (*NEEDLES, b'"Patient"') if any(map(_names_by_identifier, files)) else NEEDLES
    for file in files:
        try:
            for record in iterate_records(file, context, needles):
                _gather(record, context)
        except UnreadableFileError:
            # Reading the file for its rows meets the same error, and reports it.
            continue
    return context


def _gather(record: Record, context: Context) -> None:
    resource = record.resource
    kind, identifier = resource.get("resourceType"), resource.get("id")
    if kind == "Medication" and identifier:
        context.medications[f"Medication/{identifier}"] = read_medication(resource)
    elif kind == "Questionnaire":
        _gather_form(resource, context)
    elif kind == "Patient":
        context.replaced.update(read_links(resource, record.context))
        for business_identifier in map(as_object, as_list(resource.get("identifier"))):
            if identifier and business_identifier.get("value"):
                context.identifiers[name_identifier(business_identifier)] = str(identifier)


def _gather_form(resource: Resource, context: Context) -> None:
    form = read_form(resource)
    for name in (resource.get("id"), resource.get("url")):
        if form.items and isinstance(name, str):
            context.forms[name] = form


def _names_by_identifier(file: SourceFile) -> bool:
    try:
        return any(
            any(sign in text for sign in SIGNS) and BY_IDENTIFIER.search(text) is not None
            for text in iterate_texts(file)
        )
    except UnreadableFileError:
        return False
