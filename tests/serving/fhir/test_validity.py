"""Everything that is sent is valid FHIR R4 4.0.1, and cards keep CDS Hooks' invariants."""

import copy
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.fhir.cards import make_card
from serving.fhir.elements import make_subject
from serving.fhir.risk_assessments import make_risk_assessment
from serving.roles import Role
from tests.fixtures.api import HIGH_ANSWERS, LOW_ANSWERS, make_headers
from tests.fixtures.ehr import CLINIC, HOOK, READER, make_hook, make_response
from tests.fixtures.fhir_r4 import fhir_judge

__all__ = ["fhir_judge"]

CRISIS = [*LOW_ANSWERS[:8], 1]
PATIENT = "p1"


@pytest.fixture(scope="module")
def person(client):
    """A person with two predictions, one of them overridden, by the id `p1`."""
    body = {
        "patient_id": PATIENT,
        "grants": [
            {
                "data_types": ["survey", "wearable", "emr"],
                "purposes": ["screening"],
                "expires_at": "2099-01-01T00:00:00Z",
            }
        ],
    }
    person = client.post("/consents", json=body, headers=make_headers()).json()["anonymized_id"]
    numbers = []
    for phq9 in (HIGH_ANSWERS, CRISIS):
        sent = {"anonymized_id": person, "survey_data": {"phq9": phq9, "gad7": [1] * 7}}
        numbers.append(client.post("/screen", json=sent, headers=make_headers()).json())
    number = numbers[0]["prediction_id"]
    path = f"/screen/{number}/crisis-override"
    client.post(path, json={"comment": "x"}, headers=make_headers())
    return person


def ask(client, path, role=Role.CLINICIAN, **params):
    response = client.get(path, params=params, headers=make_headers(role))
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "application/fhir+json"
    return response.json()


def list_resources(bundle):
    return [entry["resource"] for entry in bundle.get("entry", [])]


def test_the_capability_statement_is_valid(client, fhir_judge):
    statement = client.get("/fhir/metadata").json()

    assert fhir_judge.find_problems(statement) == []
    kinds = [one["type"] for one in statement["rest"][0]["resource"]]
    searched = ["RiskAssessment", "AuditEvent", "Consent", "Provenance"]
    assert kinds == [*searched, "QuestionnaireResponse"]


@pytest.mark.parametrize("subject", [PATIENT, f"Patient/{PATIENT}"])
def test_risk_assessments_are_found_by_the_callers_own_id(client, person, fhir_judge, subject):
    bundle = ask(client, "/fhir/RiskAssessment", subject=subject)
    found = list_resources(bundle)

    assert fhir_judge.find_problems(bundle) == []
    assert [one["status"] for one in found] == ["final", "amended"]
    assert PATIENT not in str(bundle)
    for one in found:
        priority = one["prediction"][0]
        assert priority["whenPeriod"]["start"] == one["occurrenceDateTime"]
        assert 0 <= priority["probabilityDecimal"] <= 100
        (low_high,) = [part for part in one["prediction"] if "probabilityRange" in part][:1]
        assert low_high["probabilityRange"]["high"]["code"] == "%"
        assert {part["id"] for part in one["contained"]} == {"release", "phq9", "gad7"}


def test_the_probability_is_a_percentage(client, person):
    (latest, _) = list_resources(ask(client, "/fhir/RiskAssessment", subject=PATIENT))
    prediction = client.get(f"/predictions/{latest['id']}", headers=make_headers()).json()

    shown = latest["prediction"][0]["probabilityDecimal"]
    assert shown == pytest.approx(100 * prediction["answer"]["probability"], abs=1e-3)


def test_a_search_by_form_finds_the_same_and_keeps_the_id_out_of_the_address(client, person):
    headers = make_headers() | {"Content-Type": "application/x-www-form-urlencoded"}
    path = "/fhir/RiskAssessment/_search"
    found = client.post(path, content=f"patient={PATIENT}", headers=headers)

    assert len(found.json()["entry"]) == 2
    assert found.json()["link"][0]["url"].endswith("/fhir/RiskAssessment")


@pytest.mark.parametrize(
    ("dates", "results"),
    [(["ge2020-01-01"], 2), (["lt2020-01-01"], 0), (["ge2020-01-01", "le2020-12-31"], 0)],
)
def test_a_search_is_narrowed_by_date(client, person, dates, results):
    bundle = ask(client, "/fhir/RiskAssessment", patient=PATIENT, date=dates)
    assert len(list_resources(bundle)) == results


@pytest.mark.parametrize(
    "params",
    [{}, {"subject": "Group/1"}, {"subject": "urn:x|y"}, {"subject": "p", "date": "yesterday"}],
)
def test_a_search_that_makes_no_sense_is_an_operation_outcome(client, fhir_judge, params):
    response = client.get("/fhir/RiskAssessment", params=params, headers=make_headers())

    assert response.status_code == 422
    assert fhir_judge.find_problems(response.json()) == []


def test_one_risk_assessment_is_read_by_people_and_by_registered_clients(
    client, person, fhir_judge
):
    (latest, _) = list_resources(ask(client, "/fhir/RiskAssessment", subject=PATIENT))
    path = f"/fhir/RiskAssessment/{latest['id']}"

    assert fhir_judge.find_problems(ask(client, path)) == []
    assert client.get(path, headers=READER.authorise(path)).json() == ask(client, path)
    assert client.get(path, headers=make_headers(Role.AUDITOR)).status_code == 403


def test_audit_events_of_a_person_are_valid_and_name_who_did_what(client, person, fhir_judge):
    bundle = ask(client, "/fhir/AuditEvent", Role.AUDITOR, patient=person)
    events = list_resources(bundle)

    assert fhir_judge.find_problems(bundle) == []
    made = next(one for one in events if one["outcomeDesc"] == "generate_risk_score")
    assert (made["action"], made["subtype"][0]["code"]) == ("C", "create")
    caller = next(agent for agent in made["agent"] if agent["requestor"])
    assert caller["who"]["identifier"]["value"] == "clinician_001"
    assert caller["purposeOfUse"][0]["coding"][0]["code"] == "TREAT"
    kinds = [entity["type"]["code"] for entity in made["entity"]]
    assert kinds == ["XrequestId", "1", "2"]


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one["prediction"][0].update(probabilityDecimal=130),
        lambda one: one["prediction"][1]["probabilityRange"]["low"].update(code="1"),
        lambda one: one["prediction"][0].update(probabilityDecimal="high"),
        lambda one: one.pop("status"),
        lambda one: one.update(when="soon"),
    ],
    ids=["above 100", "wrong unit", "text", "no status", "unknown element"],
)
def test_the_judge_finds_what_is_wrong(client, person, fhir_judge, change):
    (latest, _) = list_resources(ask(client, "/fhir/RiskAssessment", subject=PATIENT))
    broken = copy.deepcopy(latest)
    change(broken)

    assert fhir_judge.find_problems(latest) == []
    assert fhir_judge.find_problems(broken) != []


TEXTS = st.text(max_size=200)
REASON = st.fixed_dictionaries({"text": TEXTS, "direction": st.sampled_from(["raises", "lowers"])})
INTERVAL = st.none() | st.just({"low": 0.1, "high": 0.4, "coverage": 0.9})
ANSWERS = st.fixed_dictionaries(
    {
        "prediction_id": st.uuids().map(str),
        "summary": TEXTS,
        "risk_band": st.sampled_from(["low", "moderate", "high", "critical"]),
        "decided_by": st.sampled_from(["release", "severity_rule", "crisis_rule"]),
        "needs_review": st.booleans(),
        "probability": st.none() | st.floats(0, 1),
        "interval": INTERVAL,
        "reasons": st.lists(REASON, max_size=5),
        "review_reasons": st.lists(st.fixed_dictionaries({"text": TEXTS}), max_size=3),
        "missing_data": st.lists(st.sampled_from(["survey", "emr"]), max_size=2),
        "data_as_of": st.just({"windows": "2026-01-01T00:00:00Z", "care": None}),
    }
)


@given(ANSWERS, st.none() | st.uuids())
def test_every_card_keeps_the_invariants(answer, review_id):
    prediction = {
        "id": answer["prediction_id"],
        "anonymized_id": "a" * 32,
        "created_at": "2026-01-01T00:00:00+00:00",
        "outcome": "adverse_course_v1",
        "probability": answer["probability"],
        "risk_band": answer["risk_band"],
        "release_version": "3",
        "answer": answer,
        "inputs": {},
    }
    created = make_risk_assessment(prediction, make_subject("a" * 32))
    card = make_card(answer, review_id, created, "https://mhras.example", None)

    assert len(card["summary"]) < 140
    assert card["indicator"] in ("info", "warning", "critical")
    assert (card["indicator"] == "critical") is (answer["decided_by"] == "crisis_rule")
    assert card["selectionBehavior"] == "at-most-one"  # cds-resp-6 and -7
    recommended = [one for one in card["suggestions"] if one.get("isRecommended")]
    assert len(recommended) <= 1  # cds-resp-1
    for suggestion in card["suggestions"]:
        for action in suggestion["actions"]:
            assert action["type"] == "create"  # cds-resp-2: a delete would name a resourceId
            assert action["resource"]["resourceType"] == "RiskAssessment"
            assert action["description"]  # cds-resp-5
    assert all(reason["display"] for reason in card["overrideReasons"])  # cds-resp-4
    for link in card["links"]:
        assert link["type"] == "absolute"  # cds-resp-3: no appContext
        assert link["url"].startswith("https://mhras.example/console/")
        assert "appContext" not in link


def test_the_suggestion_of_a_card_is_valid(client, fhir_judge):
    patient = uuid.uuid4().hex[:12]
    body = {
        "patient_id": f"a|{patient}",
        "grants": [
            {
                "data_types": ["survey"],
                "purposes": ["screening"],
                "expires_at": "2099-01-01T00:00:00Z",
            }
        ],
    }
    client.post("/consents", json=body, headers=make_headers())

    hook = make_hook(patient, make_response(patient, HIGH_ANSWERS))
    (card,) = client.post(HOOK, json=hook, headers=CLINIC.authorise(HOOK)).json()["cards"]
    created = card["suggestions"][0]["actions"][0]["resource"]

    assert fhir_judge.find_problems(created) == []
    assert "id" not in created
