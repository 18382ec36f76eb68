"""An answer again, and its passport: from one id to everything that led to it."""

import uuid

import pytest

from feature_repo.answer_features import ITEM_ANSWERS
from mlruns_config.manifest import RELEASE_MODEL
from mlruns_config.pages import VIEW
from serving.roles import Role
from tests.fixtures.api import LOW_ANSWERS, make_headers, make_settings, read_audit, run_app
from tests.fixtures.frozen import frozen, list_listeners

CRISIS_ANSWERS = [*LOW_ANSWERS[:8], 1]
LINEAGE = {
    "tables": {"surveys": {"version": 3, "rows": 12, "digest": "d" * 64}},
    "validation": {"run_id": "v" * 32, "success": "true"},
    "feature_tables": {"survey_history": 4},
    "feature_service_hash": "f" * 64,
    "git_commit": "c" * 40,
    "flow_run_id": "0000-1111",
}


@pytest.fixture
def answer(releases, client, grant, reader):
    """A screening by a release whose lineage is known."""
    version = releases.publish(lineage=LINEAGE)
    client.app.state.services.screening.releases.refresh()
    individual = grant()
    reader.stored[individual] = {"steps_mean_28": 6000, "birth_year": 1980}
    body = {"anonymized_id": individual, "survey_data": {"phq9": CRISIS_ANSWERS}}
    found = client.post("/screen", json=body, headers=make_headers()).json()
    assert found["release"]["version"] == version
    return found


def get(client, path, role=Role.CLINICIAN):
    return client.get(path, headers=make_headers(role))


@pytest.mark.parametrize("path", ["/predictions/{}", "/predictions/{}/passport"])
def test_what_was_never_answered_is_not_found(client, path):
    response = get(client, path.format(uuid.uuid4()), Role.ADMIN)

    assert response.status_code == 404
    assert get(client, path.format("Jane Doe"), Role.ADMIN).status_code == 422


def test_a_prediction_is_shown_as_it_was_answered_and_its_viewing_audited(client, answer, engine):
    number = answer["prediction_id"]
    found = get(client, f"/predictions/{number}", Role.DATA_SCIENTIST).json()

    assert found["answer"] | {"trend": answer["trend"]} == answer
    assert (found["risk_band"], found["crisis_override"]) == ("critical", False)
    row = read_audit(engine, answer["anonymized_id"])[-1]
    assert (row.event_type, row.action) == ("prediction_view", "view_prediction")
    assert row.details == {"prediction_id": number}


def test_a_clinicians_word_is_seen_on_the_prediction(client, grant):
    body = {"anonymized_id": grant(), "survey_data": {"phq9": [0] * 9}}
    number = client.post("/screen", json=body, headers=make_headers()).json()["prediction_id"]
    word = {"comment": "said so to me"}
    client.post(f"/screen/{number}/crisis-override", json=word, headers=make_headers())
    found = get(client, f"/predictions/{number}", Role.CLINICIAN).json()

    assert found["answer"]["risk_band"] != "critical"
    assert (found["risk_band"], found["crisis_override"]) == ("critical", True)


def test_a_passport_leads_from_the_answer_to_everything_behind_it(client, answer, releases):
    passport = get(client, f"/predictions/{answer['prediction_id']}/passport").json()
    release = passport["release"]

    assert passport["answer"]["summary"] == answer["summary"]
    assert passport["inputs"]["features"]["steps_mean_28"] == 6000
    assert passport["inputs"]["features"]["emergency_visits_365"] is None
    assert passport["inputs"]["timestamps"]["windows"] is not None
    assert (release["version"], release["arm"]) == (answer["release"]["version"], "production")
    assert release["manifest_is_as_registered"] is True
    for name in ("tables", "validation", "feature_tables"):
        shown = "data" if name == "tables" else name
        assert release[shown] == LINEAGE[name]
    assert release["git_commit"] == LINEAGE["git_commit"]
    assert release["flow_run_id"] == LINEAGE["flow_run_id"]
    pins = {pin.name: pin for pin in releases.pins}
    said = {member["name"]: member for member in answer["release"]["members"]}
    for member in release["members"]:
        pin = pins[member["name"]]
        assert (member["version"], member["run_id"]) == (pin.version, pin.run_id)
        assert member["artifacts"] == pin.artifacts
        assert member["probability"] == said[member["name"]]["probability"]
    assert release["links"]["release"].endswith(
        f"/#/models/{RELEASE_MODEL}/versions/{release['version']}?{VIEW}"
    )
    assert release["links"]["validation_run"].endswith(f"{LINEAGE['validation']['run_id']}?{VIEW}")
    assert passport["missing"] == []


def test_a_passport_shows_consent_review_and_who_has_looked(client, answer):
    number = answer["prediction_id"]
    get(client, f"/predictions/{number}", Role.DATA_SCIENTIST)
    passport = get(client, f"/predictions/{number}/passport").json()

    (consent,) = passport["consents"]
    assert consent["data_types"] == ["survey", "wearable", "emr"]
    assert passport["review"]["status"] == "pending"
    assert passport["review"]["priority"] == "critical"
    assert [viewing["action"] for viewing in passport["viewed"]] == ["view_prediction"]


def test_a_changed_manifest_is_told(client, answer, releases):
    version = answer["release"]["version"]
    releases.tag_manifest(version, "0" * 64)
    client.app.state.services.manifests._known.clear()
    passport = get(client, f"/predictions/{answer['prediction_id']}/passport").json()

    assert passport["release"]["manifest_is_as_registered"] is False


def test_a_passport_without_the_registry_says_what_is_missing(answer, database_url):
    settings = make_settings(database_url, "http://127.0.0.1:1")
    with run_app(settings, None) as client:
        passport = get(client, f"/predictions/{answer['prediction_id']}/passport").json()

    assert passport["release"] is None
    assert passport["missing"] == ["release: the registry is away or no longer has it"]
    assert passport["answer"]["summary"] == answer["summary"]


def test_a_passport_does_not_wait_for_a_registry_that_hangs(client, answer, mlflow_url):
    client.app.state.services.manifests._known.clear()
    with frozen(list_listeners(int(mlflow_url.rpartition(":")[2])), 0):
        response = get(client, f"/predictions/{answer['prediction_id']}/passport")

    assert response.status_code == 200
    assert response.json()["missing"] == ["release: the registry is away or no longer has it"]


@pytest.mark.parametrize("role", [Role.CLINICIAN, Role.DATA_SCIENTIST, Role.AUDITOR])
def test_single_answers_are_shown_to_those_who_may_see_them_and_to_no_other_role(
    client, answer, role
):
    passport = get(client, f"/predictions/{answer['prediction_id']}/passport", role).json()
    names = {name for part in passport["inputs"].values() for name in part}

    assert bool(names & ITEM_ANSWERS) is (role is Role.CLINICIAN)
    assert bool(passport["withheld"]) is (role is not Role.CLINICIAN)


def test_an_auditor_reads_no_estimate_through_the_passport(client, answer):
    path = f"/predictions/{answer['prediction_id']}"
    passport = get(client, f"{path}/passport", Role.AUDITOR).json()

    assert get(client, path, Role.AUDITOR).status_code == 403
    assert not {"risk_score", "probability", "reasons", "trend"} & passport["answer"].keys()
    assert passport["answer"]["needs_review"] is True
    assert {member["probability"] for member in passport["release"]["members"]} == {None}
    assert passport["release"]["git_commit"] == LINEAGE["git_commit"]


def test_a_data_scientist_reads_features_and_probabilities(client, answer):
    path = f"/predictions/{answer['prediction_id']}/passport"
    passport = get(client, path, Role.DATA_SCIENTIST).json()

    assert passport["inputs"]["features"]["phq9_total"] == sum(CRISIS_ANSWERS)
    assert passport["answer"]["probability"] == answer["probability"]
