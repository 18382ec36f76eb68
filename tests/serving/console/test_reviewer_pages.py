"""Pages of reviewers: the report with its CSV, the audit search, a passport, the models."""

import csv
import io
import uuid
from datetime import date

import mlflow
import pytest

from feature_repo.pseudonyms import pseudonymise
from serving.console.days import find_quarter, list_quarters
from serving.console.models import read_card, render_card
from serving.roles import Role
from tests.fixtures.api import HIGH_ANSWERS, SALT
from tests.fixtures.console import read_text


@pytest.mark.parametrize(
    ("day", "first", "last"),
    [
        (date(2026, 1, 1), date(2026, 1, 1), date(2026, 3, 31)),
        (date(2026, 11, 28), date(2026, 10, 1), date(2026, 12, 31)),
        (date(2024, 2, 29), date(2024, 1, 1), date(2024, 3, 31)),
    ],
)
def test_a_quarter_holds_its_days(day, first, last):
    quarter = find_quarter(day)

    assert (quarter.first, quarter.last) == (first, last)


def test_quarters_go_back_without_a_gap():
    quarters = list_quarters(date(2026, 2, 3))

    assert [one.first.isoformat() for one in quarters] == [
        "2026-01-01",
        "2025-10-01",
        "2025-07-01",
        "2025-04-01",
        "2025-01-01",
    ]


def test_the_report_is_a_page_and_a_csv_of_the_same_numbers(visit, screen, grant):
    screen(grant("survey"), HIGH_ANSWERS)
    auditor = visit().sign_in(Role.AUDITOR)
    page = auditor.get("/console/compliance")
    answer = auditor.get("/console/compliance/report.csv")
    rows = {(row["what"], row["item"]): row for row in csv.DictReader(io.StringIO(answer.text))}

    assert page.status_code == 200
    assert int(rows["Screenings answered", ""]["value"]) > 0
    assert rows["Screenings answered", ""]["moment"] == "in the period"
    assert rows["Open items past their due time", ""]["moment"] == "as of now"
    assert int(rows["Items queued in the period, by priority", "critical: queued"]["value"]) > 0
    for what, item in list(rows)[2:]:
        assert what in page.text, what
        assert item in read_text(page), item
    assert "As of now" in read_text(page)


@pytest.mark.parametrize(
    "query",
    ["first=soon", "last=2026-02-30", "first=2026-02-01&last=2026-01-01", "first=0001-01-01"],
)
def test_an_unusable_period_is_refused(visit, query):
    answer = visit().sign_in(Role.AUDITOR).get(f"/console/compliance?{query}")

    assert answer.status_code == 422


def test_a_reviewer_finds_what_was_done_about_a_person(visit, client, grant, screen):
    own_id = f"known-{uuid.uuid4().hex[:8]}"
    person = grant("survey", anonymized_id=pseudonymise(own_id, SALT))
    screen(person, HIGH_ANSWERS)
    auditor = visit().sign_in(Role.AUDITOR)
    by_id = auditor.get(f"/console/audit?individual={own_id}")
    by_pseudonym = auditor.get(f"/console/audit?individual={person}&action=generate_risk_score")
    nothing = auditor.get(f"/console/audit?individual={person}&result=failure")

    assert f"/console/individuals/{person}" in by_id.text
    assert "/passport" in by_pseudonym.text
    assert "No row matches" in read_text(nothing)


def test_the_trail_pages_back_to_its_beginning(visit, client):
    auditor = visit().sign_in(Role.AUDITOR, "pager")
    for _ in range(52):
        auditor.get("/console/audit?user_id=pager")
    first = auditor.get("/console/audit?user_id=pager").text
    before, found, _ = first.partition('">Earlier rows</a>')
    second = auditor.get(before.rpartition('href="')[2].replace("&amp;", "&"))

    assert found
    assert "sign in" in read_text(second)


def test_the_trail_is_verified_on_demand(visit):
    shown = read_text(visit().sign_in(Role.AUDITOR).get("/console/audit/verification"))

    assert "Every row matches the chain" in shown


def test_the_trail_is_exported_whole(visit):
    lines = visit().sign_in(Role.AUDITOR).get("/console/audit/export").text.splitlines()

    assert '"end":true' in lines[-1]
    assert len(lines) > 2


def test_a_passport_leads_from_the_prediction_to_everything_behind_it(visit, screen, grant):
    prediction_id = screen(grant("survey"), HIGH_ANSWERS).json()["prediction_id"]
    page = visit().sign_in(Role.AUDITOR).get(f"/console/predictions/{prediction_id}/passport")
    shown = read_text(page)

    assert "/#/models/mhras-risk/versions/" in page.text
    assert "as registered" in shown
    assert "Consent in force Granted" in shown
    assert "You are the first" in shown


def test_markup_in_a_model_card_arrives_as_text():
    card = render_card("# Title\n\n<script>x</script>\n\n![p](http://evil/x.png) [a](javascript:x)")

    assert card.startswith("<h3>Title</h3>")
    assert "<script" not in card
    assert "<img" not in card
    assert 'href="javascript' not in card


def test_the_models_page_shows_release_and_members_and_says_where_the_card_is(visit, client):
    release = client.app.state.services.screening.releases.current
    page = visit().sign_in(Role.DATA_SCIENTIST).get("/console/models")

    assert f"version {release.version}" in read_text(page)
    assert "it is in the training run above" in read_text(page)


def test_a_card_is_read_from_the_training_run(client, mlflow_url):
    registry = mlflow.MlflowClient(mlflow_url)
    run = registry.create_run("0")
    card = "# The card\n\n| a | b |\n|---|---|\n| 1 | 2 |"
    registry.log_text(run.info.run_id, card, "model_card.md")
    read = read_card(client.app.state.services, run.info.run_id)

    assert read == card
    assert "<table>" in render_card(read)


def test_a_clinician_opens_neither_report_nor_trail(visit):
    visitor = visit().sign_in()

    for path in ("/console/compliance", "/console/audit", "/console/models"):
        assert visitor.get(path).status_code == 403
