"""A Bulk Data export into a folder: kick-off, status, manifest, files; resumed after a cut.

What has been done is in `.export.json` beside the files: the status address and the manifest, so a
run after a cut asks for no second export and downloads no file twice.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

from flows.sources.bulk.access import ATTEMPTS, Access, BulkServerError

FHIR_JSON = "application/fhir+json"
STATE = ".export.json"  # hidden, so that it is no file of the drop
#: Between two looks at a status that does not say when to look again.
POLL_SECONDS = 30.0
CHUNK_BYTES = 1 << 20

#: What the contract reads; other types are not asked for.
TYPES = (
    *("Patient", "Consent", "Questionnaire", "QuestionnaireResponse", "Observation", "Condition"),
    *("Encounter", "Medication", "MedicationRequest", "MedicationStatement"),
    *("MedicationDispense", "MedicationAdministration"),
)


@dataclass(frozen=True)
class Export:
    """What an export gave: when the server took it, and how many files of each kind."""

    transaction_time: str
    output: int
    deleted: int
    errors: int


def pull_export(
    access: Access,
    folder: Path,
    level: str = "",
    since: str | None = None,
    announce: Callable[[str], None] = lambda message: None,
) -> Export:
    """Export `level` (all, `Patient`, or `Group/<id>`) of a server into a folder.

    With `since`, what changed after it and what was deleted. Raises BulkServerError.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    state = _read_state(folder)
    if "status" not in state:
        state = {"status": _kick_off(access, level, since)}
        _write_state(folder, state)
    if "manifests" not in state:
        state["manifests"] = _await_manifests(access, folder, state, level, since, announce)
        _write_state(folder, state)
    return _download_all(access, folder, state["manifests"], announce)


def finish_export(access: Access, folder: Path) -> None:
    """Let the server forget an export that has been taken in."""
    status = _read_state(folder).get("status")
    if status:
        # A server that has forgotten it already is as good.
        access.send("DELETE", status, may_be=(404, 405, 410))


def _read_state(folder: Path) -> dict[str, Any]:
    path = folder / STATE
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _write_state(folder: Path, state: dict[str, Any]) -> None:
    partial = folder / f"{STATE}.part"
    partial.write_text(json.dumps(state))
    partial.replace(folder / STATE)


def _kick_off(access: Access, level: str, since: str | None) -> str:
    """Start an export and return the address of its status.

    Servers of STU4 take the parameters in the body of a POST only.
    """
    root = "/".join(filter(None, (access.server, level, "$export")))
    asked = {"_type": ",".join(TYPES)} | ({"_since": since} if since else {})
    headers = {"Accept": FHIR_JSON, "Prefer": "respond-async"}
    response = access.send(
        "GET", f"{root}?{urlencode(asked)}", may_be=(400, 404, 405, 429), headers=headers
    )
    for attempt in range(ATTEMPTS):
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            access.back_off(attempt, response)
            response = access.send(
                "GET", f"{root}?{urlencode(asked)}", may_be=(400, 404, 405, 429), headers=headers
            )
    if response.status_code in (400, 404, 405):
        body = json.dumps(_write_parameters(since))
        headers |= {"Content-Type": FHIR_JSON}
        response = access.send("POST", root, headers=headers, content=body)
    status = response.headers.get("Content-Location")
    if not status:
        raise BulkServerError("the server started an export without an address of its status")
    return str(status)


def _write_parameters(since: str | None) -> dict[str, Any]:
    types = [{"name": "_type", "valueString": kind} for kind in TYPES]
    asked = [{"name": "_since", "valueInstant": since}] if since else []
    return {"resourceType": "Parameters", "parameter": [*types, *asked]}


def _await_manifests(
    access: Access,
    folder: Path,
    state: dict[str, Any],
    level: str,
    since: str | None,
    announce: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Ask for the status until the export is done; return its manifest, page by page."""
    restarted = False
    while True:
        response = access.send("GET", state["status"], may_be=(404, 410, 429))
        if response.status_code in (404, 410):
            if restarted:
                raise BulkServerError("the server forgot the export twice")
            # The export was started before a cut and has expired since.
            restarted = True
            state["status"] = _kick_off(access, level, since)
            _write_state(folder, state)
        elif response.status_code == httpx.codes.OK:
            return _follow_pages(access, dict(response.json()))
        else:
            announce(response.headers.get("X-Progress", "the export is in progress"))
            _wait_as_asked(access, response)


def _wait_as_asked(access: Access, response: httpx.Response) -> None:
    if response.headers.get("Retry-After"):
        access.back_off(0, response)
    else:
        access.wait(POLL_SECONDS)


def _follow_pages(access: Access, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    manifests = [manifest]
    while following := _find_next(manifests[-1]):
        manifests.append(dict(access.send("GET", following).json()))
    return manifests


def _find_next(manifest: dict[str, Any]) -> str | None:
    links = manifest.get("link") or []
    return next((str(link["url"]) for link in links if link.get("relation") == "next"), None)


def _download_all(
    access: Access,
    folder: Path,
    manifests: list[dict[str, Any]],
    announce: Callable[[str], None],
) -> Export:
    counts = dict.fromkeys(("output", "deleted", "error"), 0)
    for manifest in manifests:
        with_token = bool(manifest.get("requiresAccessToken", True))
        for kind in counts:
            for file in manifest.get(kind) or []:
                counts[kind] += 1
                if kind != "error":
                    _download(access, _place(folder, kind, file, counts[kind]), file, with_token)
                    announce(f"{kind} file {counts[kind]} is there")
    return Export(
        transaction_time=str(manifests[0]["transactionTime"]),
        output=counts["output"],
        deleted=counts["deleted"],
        errors=counts["error"],
    )


def _place(folder: Path, kind: str, file: dict[str, Any], number: int) -> Path:
    name = str(file.get("type", "Bundle"))
    safe = name if name.isalpha() else "Bundle"
    below = folder / "deleted" if kind == "deleted" else folder
    return below / f"{safe}.{number:04}.ndjson"


def _download(access: Access, path: Path, file: dict[str, Any], with_token: bool) -> None:
    """Download a file whole, or not at all; one that is there already stays."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_suffix(".part")
    for attempt in range(ATTEMPTS):
        try:
            lines = _write_lines(access, partial, str(file["url"]), with_token)
        except (httpx.TransportError, BulkServerError):
            if attempt == ATTEMPTS - 1:
                raise
            access.back_off(attempt)
            continue
        stated = file.get("count")
        if stated is None or lines >= int(stated):
            partial.replace(path)
            return
        access.back_off(attempt)
    raise BulkServerError(f"a file of {path.name} holds fewer resources than the manifest states")


def _write_lines(access: Access, path: Path, url: str, with_token: bool) -> int:
    lines = 0
    last = b"\n"
    with access.stream(url, with_token) as response, path.open("wb") as target:
        for chunk in response.iter_bytes(CHUNK_BYTES):
            target.write(chunk)
            lines += chunk.count(b"\n")
            last = chunk[-1:] or last
    return lines + (last != b"\n")
