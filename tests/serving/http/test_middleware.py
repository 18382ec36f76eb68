"""Around every request: a limit of size, a limit of time, and headers that keep answers in."""

import time

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from serving.console.pages import PAGE_POLICY as CONSOLE_POLICY
from serving.http.middleware import ANSWER_POLICY, DOCUMENTATION_POLICY, MAX_BODY_BYTES
from serving.routes.compliance import PAGE_POLICY as REPORT_POLICY
from tests.fixtures.api import MemoryReader, make_headers, make_settings, run_app

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_the_limit_is_refused_announced_or_not(client, chunked):
    part = b"x" * 65536
    parts = [part] * (MAX_BODY_BYTES // len(part) + 1)
    body = iter(parts) if chunked else b"".join(parts)
    response = client.post("/screen", content=body, headers=make_headers() | JSON)

    assert response.status_code == 413
    assert response.headers["Content-Type"] == "application/problem+json"


def test_a_body_at_the_limit_is_read(client):
    body = b'{"' + b"x" * (MAX_BODY_BYTES - 10) + b'": 1}'
    response = client.post("/screen", content=body, headers=make_headers() | JSON)

    assert response.status_code == 422


def test_a_request_that_takes_too_long_is_given_up(
    database_url, mlflow_url, production_version, monkeypatch
):
    settings = make_settings(database_url, mlflow_url, request_timeout=0.2)
    with run_app(settings, MemoryReader()) as client:
        verifier = client.app.state.services.accountability.tokens

        async def hang(_token):
            import asyncio

            await asyncio.sleep(20)

        monkeypatch.setattr(verifier, "verify", hang)
        begun = time.monotonic()
        response = client.get("/", headers=make_headers())

    assert response.status_code == 504
    assert response.json()["type"] == "urn:mhras:problem:deadline-exceeded"
    assert time.monotonic() - begun < 10


def test_answers_may_load_nothing_and_stay_out_of_frames(client):
    headers = client.get("/health").headers

    assert headers["Content-Security-Policy"] == ANSWER_POLICY
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "max-age" in headers["Strict-Transport-Security"]


@pytest.mark.parametrize("path", ["/health", "/nowhere", "/console/sign-in", "/docs"])
def test_answers_carry_hsts_for_a_year_and_forbid_sniffing(client, path):
    headers = client.get(path).headers

    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"


@pytest.mark.parametrize(
    "policy", [ANSWER_POLICY, DOCUMENTATION_POLICY, CONSOLE_POLICY, REPORT_POLICY]
)
def test_every_policy_names_base_and_frames(policy):
    directives = policy.split("; ")

    for needed in ("default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"):
        assert needed in directives


@pytest.mark.parametrize("path", ["/health", "/screen", "/console/sign-in"])
def test_trace_is_refused(client, path):
    assert client.request("TRACE", path, headers=make_headers()).status_code == 405


def test_the_apis_page_loads_everything_from_here(client):
    page = client.get("/docs")

    assert page.status_code == 200
    assert page.headers["Content-Security-Policy"] == DOCUMENTATION_POLICY
    assert "http" not in page.text.split("<body>")[1]
    for asset in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js"):
        assert f"/docs/{asset}" in page.text
        assert client.get(f"/docs/{asset}").status_code == 200


@pytest.mark.parametrize("name", ["redoc.standalone.js", "..%2f__init__.py", "x"])
def test_nothing_else_of_the_package_is_served(client, name):
    assert client.get(f"/docs/{name}").status_code in (404, 422)


def test_no_tracer_of_the_process_gets_what_was_asked_and_answered(client, monkeypatch):
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    assert client.get("/health").status_code == 200

    assert exporter.get_finished_spans() == ()
