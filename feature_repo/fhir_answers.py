"""One answer in FHIR, however it is written, as points of its instrument."""

import re
from typing import Any

from feature_repo.clinical_codes import normalise_system
from feature_repo.fhir_values import (
    RejectedResourceError,
    Resource,
    as_list,
    as_object,
    to_float,
)
from feature_repo.instruments import LOINC_SYSTEM, Instrument

Points = float | None

ORDINAL_EXTENSIONS = (
    "http://hl7.org/fhir/StructureDefinition/ordinalValue",
    "http://hl7.org/fhir/StructureDefinition/itemWeight",
    "http://hl7.org/fhir/StructureDefinition/iso21090-CO-value",
)
WRITTEN_NUMBER = re.compile(r"\d{1,2}(?:\.0+)?")


def read_answer(instrument: Instrument, number: int, node: Resource) -> Points:
    """Return an answer in points, None when the item was not answered.

    Read are numbers, ordinal weights of the answer or its coding, LOINC answers and the
    instrument's English labels. Whether a number is in range is for the checks that all rows meet.
    Rejects an answer that is none of these and codings that differ. Raises RejectedResourceError
    for either.
    """
    points = {value for value in _list_points(instrument, node) if value is not None}
    if len(points) > 1:
        raise RejectedResourceError(f"item_{number}: is coded as two different answers")
    if not points and any(key.startswith("value") for key in node):
        answers = ", ".join([*instrument.answer_points, *instrument.answer_labels])
        raise RejectedResourceError(
            f"item_{number}: is neither a number nor one of the answers {answers}"
        )
    return next(iter(points), None)


def read_number(node: Resource) -> Points:
    """Return the number of a node: valueInteger, valueDecimal, valueQuantity, or digits."""
    quantity = as_object(node.get("valueQuantity")).get("value")
    written = [
        node.get("valueInteger"),
        node.get("valueDecimal"),
        quantity,
        node.get("valueString"),
    ]
    for value in written:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return to_float(value)
        if isinstance(value, str) and WRITTEN_NUMBER.fullmatch(value.strip()):
            return float(value)
    return None


def _list_points(instrument: Instrument, node: Resource) -> list[Points]:
    concept = as_object(node.get("valueCodeableConcept"))
    coding = node.get("valueCoding") or concept.get("coding")
    codings = [entry for entry in as_list(coding) if isinstance(entry, dict)]
    weights = [_read_weight(element) for element in (node, concept, *codings)]
    texts = [
        concept.get("text"),
        node.get("valueString"),
        *(entry.get("display") for entry in codings),
    ]
    return [
        read_number(node),
        *weights,
        *(_read_code(instrument, entry) for entry in codings),
        *(_read_label(instrument, text) for text in texts),
    ]


def _read_weight(node: Resource) -> Points:
    for extension in as_list(node.get("extension")):
        if as_object(extension).get("url") in ORDINAL_EXTENSIONS:
            return read_number(extension)
    return None


def _read_code(instrument: Instrument, coding: Resource) -> Points:
    system = coding.get("system")
    if system is None or normalise_system(str(system)) == LOINC_SYSTEM:
        return instrument.answer_points.get(str(coding.get("code")))
    return None


def _read_label(instrument: Instrument, text: Any) -> Points:
    plain = re.sub(r"[^a-z]+", " ", str(text or "").lower()).strip()
    return instrument.answer_labels.get(plain.replace("half of the days", "half the days"))
