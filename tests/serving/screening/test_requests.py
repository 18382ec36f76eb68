import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from serving.screening.answers import ScreeningAnswer
from serving.screening.examples import EXAMPLE_ANSWER
from serving.screening.requests import (
    EXAMPLE,
    GAD7_TOPICS,
    PHQ9_TOPICS,
    ScreeningRequest,
    SurveyData,
)
from tests.fixtures.api import CLINICIAN

SAMPLE = Path(__file__).parents[2] / "fixtures" / "sample_screening_request.json"
possible_answers = st.none() | st.integers(0, 3)
impossible_answers = (
    st.integers().filter(lambda number: not 0 <= number <= 3)
    | st.booleans()
    | st.floats()
    | st.text()
    | st.lists(st.none())
)


def test_the_sample_request_and_the_documented_example_are_usable():
    sample = json.loads(SAMPLE.read_text())

    assert ScreeningRequest.model_validate(sample).consent_verified is True
    assert ScreeningRequest.model_validate(EXAMPLE).answers.has_answers


@given(st.lists(possible_answers, min_size=9, max_size=9))
def test_every_possible_answer_vector_is_accepted_unchanged(answers):
    assert SurveyData.model_validate({"phq9": answers}).phq9 == answers


@given(st.integers(0, 7), impossible_answers)
def test_an_impossible_answer_is_refused_at_its_place(place, answer):
    answers = [0] * 9
    answers[place] = answer

    with pytest.raises(ValidationError) as refused:
        SurveyData.model_validate({"phq9": answers})
    assert refused.value.errors()[0]["loc"] == ("phq9", place)


@given(impossible_answers)
def test_an_impossible_item_9_is_read_as_unreadable(answer):
    assert SurveyData.model_validate({"phq9": [*[0] * 8, answer]}).phq9 == [*[0] * 8, None]


@given(st.integers(0, 20).filter(lambda length: length != 9))
def test_another_number_of_answers_is_refused(length):
    with pytest.raises(ValidationError):
        SurveyData.model_validate({"phq9": [0] * length})


@given(st.text(alphabet="0123456789abcdefABCDEFxyz\n ", max_size=40))
def test_only_32_lower_case_hex_digits_are_a_pseudonym(text):
    is_pseudonym = len(text) == 32 and set(text) <= set("0123456789abcdef")
    try:
        ScreeningRequest.model_validate({"anonymized_id": text})
        accepted = True
    except ValidationError:
        accepted = False

    assert accepted == is_pseudonym


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "1999-12-31T23:59:59Z"])
def test_an_index_time_before_the_questionnaires_is_refused(moment):
    body = {"anonymized_id": "a" * 32, "index_time": moment}
    with pytest.raises(ValidationError, match="must not lie before 2000-01-01"):
        ScreeningRequest.model_validate(body)


def test_the_documented_answer_is_an_answer():
    assert ScreeningAnswer.model_validate(EXAMPLE_ANSWER).needs_review


def test_the_documentation_gives_order_and_meaning_of_every_item():
    described = SurveyData.model_json_schema()["properties"]

    assert "9 thoughts of death or self-harm. Each is 0 not at all" in str(described["phq9"])
    assert "7 fear that something awful happens" in str(described["gad7"])
    assert (len(PHQ9_TOPICS), len(GAD7_TOPICS)) == (9, 7)


def test_the_documented_example_is_answered_once_its_person_consents(client):
    grant = {
        "data_types": ["survey"],
        "purposes": ["screening"],
        "expires_at": "2099-01-01T00:00:00Z",
    }
    body = {"patient_id": EXAMPLE["patient_id"], "grants": [grant]}
    client.post("/consents", json=body, headers=CLINICIAN()).raise_for_status()

    assert client.post("/screen", json=EXAMPLE, headers=CLINICIAN()).status_code == 200
