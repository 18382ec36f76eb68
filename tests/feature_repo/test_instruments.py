"""An instrument is data: WHO-5, where more is better, goes the whole way by its entry alone."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from feature_repo.catalogue import list_model_inputs
from feature_repo.instruments import (
    BDI2,
    GAD7,
    INSTRUMENTS,
    PHQ8,
    PHQ9,
    WHO5,
    ImpossibleAnswerError,
    Instrument,
)
from flows.features.surveys import compute_survey_history
from flows.lake.tables import scan_table
from flows.models.monotone import MONOTONE_COLUMNS
from mlruns_config.manifest import FeatureDescription
from serving.scoring.reasons import describe_reason
from tests.fixtures.landed_tables import midnight
from tests.fixtures.quiet_ingestion import KEY, ingest_quietly

QUESTIONNAIRE = {
    "resourceType": "Questionnaire",
    "id": "who5",
    "url": "http://example.org/Questionnaire/who5",
    "code": [{"system": "http://snomed.info/sct", "code": "1144665009"}],
    "item": [{"linkId": f"who5-{n}", "type": "choice"} for n in range(1, 6)],
}
LABELS = ["At no time", "Some of the time", "Most of the time", "Some of the time", "At no time"]


def respond(**answers: str) -> dict[str, Any]:
    items = [
        {"linkId": f"who5-{n}", "answer": [{"valueCoding": {"display": label}}]}
        for n, label in enumerate(LABELS, 1)
    ]
    return {
        "resourceType": "QuestionnaireResponse",
        "id": "r1",
        "questionnaire": "http://example.org/Questionnaire/who5|1.0",
        "status": "completed",
        "subject": {"reference": "Patient/p1"},
        "authored": "2025-05-20T10:00:00Z",
        "item": items,
    } | answers


@pytest.mark.parametrize("instrument", INSTRUMENTS.values(), ids=list(INSTRUMENTS))
def test_every_instrument_is_whole(instrument: Instrument) -> None:
    floors = [floor for floor, _ in instrument.severity_floors]
    assert floors == sorted(set(floors))
    assert floors[0] == 0
    assert floors[-1] <= instrument.max_total
    assert len(instrument.item_loincs) in (0, instrument.item_count)
    if instrument.short_form_of:
        longer = INSTRUMENTS[instrument.short_form_of].item_loincs
        assert instrument.item_loincs == longer[: instrument.item_count]


def test_an_answer_beyond_an_instruments_range_is_refused() -> None:
    with pytest.raises(ImpossibleAnswerError, match="WHO-5 item_1 is 6, allowed are 0 to 5"):
        WHO5.check_answers([6, 0, 0, 0, 0])
    with pytest.raises(ImpossibleAnswerError, match="GAD-7 item_2 is 4, allowed are 0 to 3"):
        GAD7.check_answers([0, 4, 0, 0, 0, 0, 0])


def test_severity_follows_the_direction_of_an_instrument() -> None:
    assert WHO5.severity(3) == "likely depression"
    assert WHO5.severity(25) == "good well-being"
    assert BDI2.severity(29) == "severe"
    assert PHQ9.severity(20) == PHQ8.severity(20) == "severe"


@pytest.fixture
def lake(tmp_path: Path) -> str:
    """A lake with a WHO-5 of 23 from a CSV, and one of 6 from FHIR two weeks later."""
    drop = tmp_path / "drop"
    drop.mkdir()
    header = "person_id,instrument,answered_at,item_1,item_2,item_3,item_4,item_5"
    rows = [header, "p1,WHO-5,2025-05-06,5,5,4,4,5", "p1,WHO-5,2025-05-07,6,0,0,0,0"]
    (drop / "surveys.csv").write_text("\n".join(rows))
    (drop / "Questionnaire.ndjson").write_text(json.dumps(QUESTIONNAIRE))
    (drop / "QuestionnaireResponse.ndjson").write_text(json.dumps(respond()))
    lake = str(tmp_path / "lake")
    report = ingest_quietly(drop, lake, ["p1"])
    assert report.tables["surveys"].quarantined == 1
    return lake


def test_who5_lands_from_csv_and_fhir_and_becomes_history(lake: str) -> None:
    surveys = scan_table(lake, "surveys").collect()
    assert surveys["instrument"].unique().to_list() == ["WHO-5"]
    moments = pl.DataFrame(
        {"anonymized_id": [KEY.pseudonymise("p1")], "as_of": [midnight(2025, 6, 1)]}
    ).cast({"as_of": pl.Datetime("us", "UTC")})
    (row,) = compute_survey_history(moments, surveys).to_dicts()
    # Points below the best total of 25, so that more is worse as in every other feature.
    assert row["who5_last"] == 19
    assert row["who5_mean_365"] == (2 + 19) / 2
    assert row["who5_slope_365"] > 0
    assert row["stored_phq9_total"] is None


def test_who5_is_an_input_that_may_only_raise_and_an_answer_names_it() -> None:
    (column,) = [one for one in list_model_inputs() if one.name == "who5_last"]
    assert column.data_type == "survey"
    assert column.name in MONOTONE_COLUMNS
    feature = FeatureDescription(
        name=column.name,
        label=column.label,
        unit=column.unit,
        data_type=column.data_type,
        usual_low=4.0,
        usual_high=12.0,
    )
    text = describe_reason(feature, 19.0, 0.4).text
    assert text.startswith("last WHO-5 points below the best total of 25: 19 points")
    assert "raises the priority" in text
