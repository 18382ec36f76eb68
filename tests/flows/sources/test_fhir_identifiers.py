"""People whom a record names by an identifier, not by a reference to a Patient."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.sources.fhir_documents import BLOCK_BYTES
from tests.fixtures.fhir import KEY, observation, read

IDENTIFIER = {"system": "https://hospital.example.org/mrn", "value": "123"}
PATIENT = {"resourceType": "Patient", "id": "p1", "identifier": [IDENTIFIER]}
CONTAINED = {"resourceType": "Patient", "id": "x", "identifier": [IDENTIFIER]}

#: How a record may name its person without a reference to a Patient.
WAYS: dict[str, dict[str, Any]] = {
    "identifier": {"subject": {"identifier": IDENTIFIER}},
    "typed": {"subject": {"type": "Patient", "identifier": IDENTIFIER}},
    "shown": {"subject": {"display": "A. B.", "identifier": IDENTIFIER}},
    "contained": {"subject": {"reference": "#x"}, "contained": [CONTAINED]},
}


def named(way: str) -> dict[str, Any]:
    return observation("44260-8", valueInteger=1) | WAYS[way]


def find_people(folder: Path) -> set[str | None]:
    batches = read(folder)
    assert [one.reason for batch in batches for one in batch.rejected] == []
    frames = [batch.rows["surveys"] for batch in batches if "surveys" in batch.rows]
    return {person for frame in frames for person in frame["anonymized_id"]}


def write_document(folder: Path, text: str, encoding: str = "utf-8") -> None:
    (folder / "x.json").write_bytes(text.encode(encoding))


def make_bundle(*resources: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Bundle", "entry": [{"resource": one} for one in resources]}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_person_named_by_identifier_is_found_in_any_encoding(
    tmp_path: Path, way: str, encoding: str
) -> None:
    lines = "\n".join(map(json.dumps, [PATIENT, named(way)]))
    (tmp_path / "Observation.ndjson").write_bytes(lines.encode(encoding))
    assert find_people(tmp_path) == {KEY.pseudonymise("p1")}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_person_named_by_identifier_is_found_in_a_document(
    tmp_path: Path, way: str, encoding: str
) -> None:
    write_document(tmp_path, json.dumps(make_bundle(PATIENT, named(way)), indent=2), encoding)
    assert find_people(tmp_path) == {KEY.pseudonymise("p1")}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cut", [1, 8, 12, 14, 18])
def test_a_person_is_found_where_the_text_spans_the_blocks_that_are_read(
    tmp_path: Path, way: str, cut: int
) -> None:
    text = json.dumps(named(way))
    before = len(text[: text.index('"subject"')]) + cut
    patient = json.dumps(PATIENT)
    # White space between resources puts the end of the first block `cut` bytes into "subject".
    padding = " " * (BLOCK_BYTES - before - len(patient) - len("[,"))
    write_document(tmp_path, f"[{patient},{padding}{text}]")
    assert find_people(tmp_path) == {KEY.pseudonymise("p1")}


def test_a_line_longer_than_a_block_is_searched_whole(tmp_path: Path) -> None:
    for cut in (8, 14):
        record = {"note": [{"text": ""}]} | named("identifier")
        begun = json.dumps(record).index('"subject"') + cut
        record["note"] = [{"text": "x" * (BLOCK_BYTES - begun)}]
        (tmp_path / "Observation.ndjson").write_text(json.dumps(record))
        (tmp_path / "Patient.ndjson").write_text(json.dumps(PATIENT))
        assert find_people(tmp_path) == {KEY.pseudonymise("p1")}
