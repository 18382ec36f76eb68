"""Errors as FHIR answers them: OperationOutcome, one issue for each thing that is wrong."""

from collections.abc import Mapping
from typing import Any

from fastapi import Request
from starlette.responses import JSONResponse, Response

from serving.fhir.elements import FHIR_JSON, Resource
from serving.http.problems import Problem, describe_problems

#: Where answers are FHIR or CDS Hooks, whose errors are OperationOutcomes.
PREFIXES = ("/fhir", "/cds-services")

#: FHIR's issue types (http://hl7.org/fhir/issue-type) by HTTP status.
ISSUE_TYPES = {
    400: "invalid",
    401: "login",
    403: "forbidden",
    404: "not-found",
    409: "conflict",
    412: "required",
    413: "too-long",
    422: "invalid",
    429: "throttled",
    503: "transient",
    504: "timeout",
}


class FhirResponse(JSONResponse):
    """A resource as FHIR JSON."""

    media_type = FHIR_JSON


def describe_outcomes(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI entries of the OperationOutcomes a route returns."""
    described = describe_problems(*statuses)
    content = {FHIR_JSON: {"schema": {"type": "object"}}}
    return {
        status: {"description": response["description"], "content": content}
        for status, response in described.items()
    }


#: What a search or a read of FHIR may answer beside its resource.
READ_PROBLEMS = describe_outcomes(401, 403, 404, 422, 429, 500, 503, 504)


def render_outcome(_request: Request, problem: Problem, headers: Mapping[str, str]) -> Response:
    """Return a problem as an OperationOutcome under the same status and headers."""
    return FhirResponse(make_outcome(problem), problem.status, dict(headers))


def make_outcome(problem: Problem) -> Resource:
    code = ISSUE_TYPES.get(problem.status, "exception")
    issues = [_make_issue("error", code, f"{problem.title}: {problem.detail}")]
    for wrong in problem.errors or []:
        issue = _make_issue("error", code, f"{wrong.field}: {wrong.message}")
        issues.append(issue | {"expression": [wrong.field]})
    if problem.crisis_guidance is not None:
        issues.append(_make_issue("warning", "informational", problem.crisis_guidance))
    return {"resourceType": "OperationOutcome", "issue": issues}


def _make_issue(severity: str, code: str, text: str) -> Resource:
    return {"severity": severity, "code": code, "diagnostics": text, "details": {"text": text}}
