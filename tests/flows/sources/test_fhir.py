"""What cannot be read, is not needed, or comes damaged."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.instruments import PHQ9
from flows.sources.batch import UnreadableFileError
from flows.sources.clean import WITHDRAWALS, check_rows
from flows.sources.contract import TABLES
from flows.sources.drop import find_files
from tests.fixtures.fhir import (
    NOW,
    SUBJECT,
    code,
    consent,
    medication_request,
    observation,
    quantity,
    read,
    reasons,
    response,
    write,
)


def test_a_truncated_line_is_rejected_with_its_number_and_the_others_are_read(
    tmp_path: Path,
) -> None:
    whole = json.dumps({"resourceType": "Patient", "id": "p1", "birthDate": "1980"})
    write(tmp_path, whole, whole[:30], '{"id": "p2"}', "[1]", whole, name="Patient.ndjson")
    (batch,) = read(tmp_path)
    assert [(one.table, one.row_number, one.reason) for one in batch.rejected] == [
        ("unreadable", 2, "line: is not a complete JSON object"),
        ("unreadable", 3, "resourceType: is missing, so it is no FHIR resource"),
        ("unreadable", 4, "resourceType: is missing, so it is no FHIR resource"),
    ]
    assert batch.rows["people"]["row_number"].to_list() == [1, 5]
    assert batch.records == 5


def test_a_line_that_is_not_utf8_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "Patient.ndjson").write_bytes(b'{"resourceType": "Patient", "id": "\xff"}\n')
    (batch,) = read(tmp_path)
    assert batch.rejected[0].reason == "line: is not UTF-8"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", b'{"resourceType": "Bundle", ', "is not complete JSON in UTF-8"),
        ("x.json", b"", "is not complete JSON in UTF-8"),
        ("x.zip", b"no archive", "is not a readable zip archive"),
        ("x.ndjson.gz", gzip.compress(b'{"resourceType": "X"}\n' * 99)[:-12], "ends early"),
    ],
    ids=["json", "empty", "zip", "gzip"],
)
def test_a_damaged_file_is_refused_by_the_digest_in_its_label(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    label = find_files(str(tmp_path)).files[0].label
    with pytest.raises(UnreadableFileError, match=message) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(label)
    assert label.startswith("fhir-")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"subject": None}, "subject.reference: is missing"),
        ({"subject": {"reference": "Group/g"}}, "subject.reference: does not name a Patient"),
        ({"subject": {"identifier": {"value": "x"}}}, "subject.reference: is missing"),
        ({"effectiveDateTime": "2025-01"}, "effectiveDateTime: is missing or not precise"),
        ({"valueCodeableConcept": code("LA15694-5")}, "item_9: is neither a number nor one of"),
        ({"valueString": "often"}, "item_9: is neither a number nor one of"),
    ],
)
def test_an_answer_that_cannot_be_used_is_rejected_with_its_reason(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    whole = observation("44260-8", valueCodeableConcept=code("LA6569-3"))
    if "valueString" in change:
        del whole["valueCodeableConcept"]
    (reason,) = reasons(tmp_path, whole | change)
    assert reason.startswith(expected)


def test_what_nobody_needs_is_counted_by_kind(tmp_path: Path) -> None:
    write(
        tmp_path,
        observation("8867-4", valueQuantity={"value": 44}),
        observation("99999-9"),
        {"resourceType": "Procedure"},
        observation("44260-8", status="entered-in-error"),
        observation("44260-8", status="Jane Doe"),
        response({"12345-6": {"valueInteger": 1}}),
        {
            "resourceType": "Condition",
            "verificationStatus": {"coding": [{"code": "refuted"}]},
            "subject": SUBJECT,
        },
    )
    (batch,) = read(tmp_path)
    assert batch.ignored == Counter(
        {
            "Observation with another code": 2,
            "Procedure": 1,
            "Observation with status entered-in-error": 1,
            "Observation with status that FHIR does not define": 1,
            "QuestionnaireResponse without an item of an instrument": 1,
            "Condition that is refuted": 1,
        }
    )


ORDINAL = {
    "valueCoding": {
        "code": "more-than-half",
        "extension": [
            {"url": "http://hl7.org/fhir/StructureDefinition/ordinalValue", "valueDecimal": 2}
        ],
    }
}
EXAMPLES: list[dict[str, Any]] = [
    observation("44260-8", valueInteger=1),
    observation("93832-4", valueQuantity=quantity(7, "h")),
    response({PHQ9.item_loincs[0]: ORDINAL}),
    medication_request(medicationCodeableConcept={"coding": [{"system": "rx", "code": "1"}]}),
    consent(),
    {"resourceType": "Patient", "id": "p1", "birthDate": "1980-01-01", "gender": "female"},
    {
        "resourceType": "Encounter",
        "status": "finished",
        "class": {"code": "AMB"},
        "type": [{"coding": [{"system": "s", "code": "c"}]}],
        "subject": SUBJECT,
        "period": {"start": "2025-01-01"},
    },
]
anything = st.recursive(
    st.just(10**400)
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=4,
)


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Any]:
    """A resource with one element, at any depth, replaced by anything."""
    resource = json.loads(json.dumps(draw(st.sampled_from(EXAMPLES))))
    node: Any = resource
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = draw(st.sampled_from([key for key in keys if key != "resourceType"]))
        if isinstance(node[key], dict | list) and node[key] and draw(st.booleans()):
            node = node[key]
            continue
        node[key] = draw(anything)
        return dict(resource)


@settings(max_examples=300, deadline=None)
@given(damaged())
def test_no_damaged_resource_breaks_the_reader_or_gets_lost(
    tmp_path_factory: pytest.TempPathFactory, resource: dict[str, Any]
) -> None:
    folder = write(tmp_path_factory.mktemp("drop"), resource)
    batches = [*read(folder), *read(folder, consents=True)]
    rows = sum(frame.height for batch in batches for frame in batch.rows.values())
    accounted = rows + sum(len(batch.rejected) + batch.ignored.total() for batch in batches)
    assert accounted == 1 + sum(batch.split for batch in batches)
    for batch in batches:
        for table, frame in batch.rows.items():
            checked = check_rows(TABLES.get(table, WITHDRAWALS), frame, NOW)
            assert checked.good.height + checked.rejected.height == frame.height
