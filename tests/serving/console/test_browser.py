"""The console in a real Chromium: as people use it, without scripts and by keyboard alone."""

import uuid

import html5lib
import pytest
from axe_playwright_python.sync_playwright import Axe

from feature_repo.pseudonyms import pseudonymise
from infra.local.ports import choose_port
from serving.database.tables import ReviewItem
from serving.http.middleware import REQUEST_ID_HEADER
from serving.roles import Role
from tests.fixtures.api import CLINICIAN, HIGH_ANSWERS, LOW_ANSWERS, SALT, make_settings, read_rows
from tests.fixtures.browser import address, chromium, person, serve
from tests.fixtures.openid_provider import CLIENT_ID, CLIENT_SECRET, run_provider

__all__ = ["address", "chromium", "person"]

CRISIS = [1, 1, 2, 1, 1, 1, 1, 1, 3]
#: WCAG 2.2 on levels A and AA, by the tags of axe-core.
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa"]
NARROW = {"width": 320, "height": 640}


@pytest.fixture
def crisis(screen, grant, engine):
    """The newest of the most urgent: a person with item 9 at 3."""
    who = grant("survey")
    for answers in (LOW_ANSWERS, HIGH_ANSWERS, CRISIS):
        answer = screen(who, answers).json()
    items = read_rows(engine, ReviewItem, who)
    item = next(one for one in items if str(one.prediction_id) == answer["prediction_id"])
    return who, item


def answer_form(page, own_id, phq9):
    page.fill("#patient_id", own_id)
    for number, points in enumerate(phq9, 1):
        page.check(f"input[name=phq9_{number}][value='{points}']")
    page.click("main button:has-text('Screen')")


def test_a_crisis_goes_from_the_queue_to_a_decision(person, crisis, engine):
    who, item = crisis
    dr = person(user="dr.works.it")
    dr.open("/console/queue?band=critical&order=newest")
    dr.page.click(f"a[href='/console/cases/{item.id}']")
    assert "What to do now" in dr.text
    assert "Answers to PHQ-9" in dr.page.content()
    dr.page.click("button:has-text('Claim this item')")
    assert "You have claimed it" in dr.text
    dr.page.click("summary:has-text('Record a contact attempt')")
    dr.page.select_option("#channel", "phone")
    dr.page.select_option("#outcome", "spoke")
    dr.page.click("button:has-text('Record the attempt')")
    assert "Phone, reached: spoke with the person" in dr.text
    dr.page.check("input[name=decision][value=refer]")
    dr.page.click("button:has-text('Save the decision')")
    assert "There is a problem" in dr.text
    assert dr.page.is_checked("input[name=decision][value=refer]")
    dr.page.fill("#comment", "To the crisis team.")
    dr.page.click("button:has-text('Save the decision')")
    assert "dr.works.it referred on" in dr.text
    dr.page.click("button:has-text('Sign out')")
    assert dr.open(f"/console/cases/{item.id}").url.startswith(f"{dr.address}/console/sign-in")
    stored = next(one for one in read_rows(engine, ReviewItem, who) if one.id == item.id)
    assert stored.decision == "refer"


def test_a_person_is_screened_once_consent_is_recorded_and_not_after_its_withdrawal(person):
    dr, own_id = person(), f"clinic-{uuid.uuid4().hex[:8]}"
    answer_form(dr.open("/console/screen"), own_id, HIGH_ANSWERS)
    assert "no active consent" in dr.text
    dr.page.click("text=Record what the person agrees to")
    assert f"Consent of {own_id}" in dr.text
    dr.page.check("input[name=data_types][value=survey]")
    dr.page.check("input[name=purposes][value=screening]")
    dr.page.fill("#expires_on", "2099-12-31")
    dr.page.click("button:has-text('Record the consent')")
    answer_form(dr.open("/console/screen"), own_id, HIGH_ANSWERS)
    assert f"Person {own_id}" in dr.text
    assert "Next step" in dr.text
    dr.open(f"/console/individuals/{pseudonymise(own_id, SALT)}/consents")
    dr.page.click("button:has-text('Withdraw')")
    answer_form(dr.open("/console/screen"), own_id, HIGH_ANSWERS)
    assert "no active consent" in dr.text


def test_a_reviewer_reads_and_takes_the_quarter(person, crisis):
    reviewer = person(Role.AUDITOR, "reviewer")
    reviewer.open("/console")
    assert "Compliance report" in reviewer.text
    reviewer.page.click("a:has-text('Quarter') >> nth=1")
    with reviewer.page.expect_download() as download:
        reviewer.page.click("text=Download as CSV")
    assert download.value.suggested_filename.startswith("mhras-compliance-")
    reviewer.open("/console/audit?event_type=screening_request")
    reviewer.page.click("a:has-text('passport') >> nth=0")
    assert "Passport of a prediction" in reviewer.text
    reviewer.page.click("button:has-text('Sign out')")
    assert reviewer.page.url.endswith("/console/sign-in")


def focus_by_tab(page, name, most=60):
    """Press Tab until an element with that text has the focus."""
    for _ in range(most):
        page.keyboard.press("Tab")
        focused = page.evaluate("document.activeElement.innerText || ''")
        if name in focused.strip():
            return
    pytest.fail(f"{name} is out of reach of the keyboard")


def test_a_crisis_is_claimed_by_keyboard_alone(person, crisis):
    dr = person(java_script_enabled=True)  # only to ask where the focus is
    page = dr.open("/console/queue?band=critical&order=newest")
    focus_by_tab(page, "Skip to main content", 1)
    page.keyboard.press("Enter")
    focus_by_tab(page, "Review now")
    page.keyboard.press("Enter")
    page.wait_for_url("**/console/cases/*")
    focus_by_tab(page, "Claim this item")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=You have claimed it")


@pytest.fixture
def paths(crisis):
    """Every page by the role that opens it."""
    who, item = crisis
    one = f"/console/individuals/{who}"
    return {
        Role.ADMIN: [
            "/console/queue",
            f"/console/cases/{item.id}",
            f"/console/predictions/{item.prediction_id}",
            f"/console/predictions/{item.prediction_id}/passport",
            "/console/sessions",
            "/console/screen",
            "/console/individuals",
            one,
            f"{one}/consents",
            f"{one}/access-history",
            f"{one}/erasure",
            "/console/models",
            "/console/compliance",
            "/console/audit",
            "/console/audit/verification",
            "/console/sign-in",
            f"/console/cases/{uuid.uuid4()}",
        ],
    }


def test_no_page_breaks_wcag_is_invalid_asks_elsewhere_or_scrolls_sideways(
    person, paths, client, crisis
):
    _, item = crisis
    client.post(f"/reviews/{item.id}/claim", headers=CLINICIAN(user="other")).raise_for_status()
    axe, found = Axe(), []
    for role, opened in paths.items():
        boss = person(role, "boss", java_script_enabled=True, bypass_csp=True)
        # A problem page prints the id of its request: the widest there is.
        boss.page.set_extra_http_headers({REQUEST_ID_HEADER: f"WWWWWWWW_{uuid.UUID(int=0).hex}"})
        for path in opened:
            page = boss.open(path)
            found += [f"{path}: {one}" for one in check_accessibility(axe, page)]
            found += [f"{path}: {one}" for one in check_html(page)]
            page.set_viewport_size(NARROW)
            width = page.evaluate("document.scrollingElement.scrollWidth")
            found += [f"{path} is {width} wide on a phone"] if width > NARROW["width"] else []
            page.set_viewport_size({"width": 1100, "height": 900})
        foreign = {one for one in boss.foreign_requests if not one.startswith(boss.address)}
        found += [f"asks for {one}" for one in foreign]

    assert found == []


def test_a_form_with_errors_keeps_wcag_and_its_policy(person):
    dr = person(java_script_enabled=True)
    page = dr.open("/console/screen")
    page.check("input[name=phq9_1][value='2']")
    page.click("main button:has-text('Screen')")

    assert "There is a problem" in dr.text
    assert check_accessibility(Axe(), page) == []
    assert check_html(page) == []
    assert [one for one in dr.complaints if "Content Security Policy" in one] == []


def check_accessibility(axe, page):
    results = axe.run(page, options={"runOnly": {"type": "tag", "values": WCAG}})
    return [
        f"{one['id']}: {node['html'][:120]}"
        for one in results.response["violations"]
        for node in one["nodes"]
    ]


def check_html(page):
    """Return what is wrong with a page's source as it was sent."""
    source = page.request.get(page.url).text()
    parser = html5lib.HTMLParser(html5lib.getTreeBuilder("etree"), namespaceHTMLElements=False)
    tree = parser.parse(source)
    problems = [f"{code} at {place}" for place, code, _ in parser.errors]
    ids = [node.get("id") for node in tree.iter() if node.get("id")]
    problems += [f"id {one} twice" for one in set(ids) if ids.count(one) > 1]
    for name in ("for", "aria-describedby", "aria-labelledby"):
        for node in tree.iter():
            wanted = (node.get(name) or "").split()
            problems += [f"{name} names no {one}" for one in wanted if one not in ids]
    return problems


def test_a_person_comes_back_from_a_provider_on_another_site_signed_in(
    chromium, application_url, mlflow_url, production_version, reader
):
    """The session cookie is not sent along the provider's redirect; the page opens itself."""
    port = choose_port(18400)
    with run_provider() as provider:
        settings = make_settings(
            application_url,
            mlflow_url,
            MHRAS_ENV="development",
            oidc_issuer=provider.issuer.replace("127.0.0.1", "localhost"),
            oidc_client_id=CLIENT_ID,
            oidc_client_secret=CLIENT_SECRET,
            console_url=f"http://127.0.0.1:{port}",
        )
        provider.issuer = settings.oidc_issuer
        with serve(settings, reader, port) as url:
            page = chromium.new_context(java_script_enabled=False).new_page()
            page.goto(f"{url}/console/queue")
            page.click("text=Sign in with your organisation's account")
            page.wait_for_url("**/console/queue")
            assert "dr.provided (clinician)" in page.inner_text("header")
            page.context.close()
