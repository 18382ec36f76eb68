"""Transaction Bundles: which resources they hold, and the answer to them."""

from collections.abc import Sequence
from dataclasses import dataclass

from serving.errors import UnusableError
from serving.fhir.elements import Resource

MOST_ENTRIES = 200
KINDS = ("Patient", "QuestionnaireResponse", "Observation")


@dataclass(frozen=True)
class Entry:
    """One resource with the address that others refer to it by."""

    resource: Resource
    full_url: str | None = None
    request_url: str | None = None

    @property
    def name(self) -> str | None:
        """Return `Type/id`, by the resource or by the address it is written to."""
        kind, own = self.resource.get("resourceType"), self.resource.get("id")
        if isinstance(own, str):
            return f"{kind}/{own}"
        url = self.request_url or ""
        return url if url.startswith(f"{kind}/") else None

    @property
    def identifier(self) -> str:
        """Return the sender's identifier of a QuestionnaireResponse, "" without one."""
        identifier = self.resource.get("identifier")
        if self.resource.get("resourceType") != "QuestionnaireResponse" or not isinstance(
            identifier, dict
        ):
            return ""
        return (
            f"{identifier.get('system', '')}|{identifier['value']}"
            if identifier.get("value")
            else ""
        )


def read_entries(bundle: Resource) -> list[Entry]:
    """Return the entries of a transaction; raises UnusableError naming what is not taken."""
    if bundle.get("resourceType") != "Bundle" or bundle.get("type") != "transaction":
        raise UnusableError("the body is not a Bundle of type transaction")
    listed = bundle.get("entry")
    if not isinstance(listed, list) or not 0 < len(listed) <= MOST_ENTRIES:
        raise UnusableError(f"entry: holds no entry, or more than {MOST_ENTRIES}")
    return [_read_entry(number, entry) for number, entry in enumerate(listed)]


def _read_entry(number: int, entry: object) -> Entry:
    resource = entry.get("resource") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(resource, dict):
        raise UnusableError(f"entry[{number}].resource: is missing")
    if resource.get("resourceType") not in KINDS:
        raise UnusableError(f"entry[{number}].resource: is none of {', '.join(KINDS)}")
    request = entry.get("request")
    url = request.get("url") if isinstance(request, dict) else None
    full_url = entry.get("fullUrl")
    return Entry(
        resource,
        full_url if isinstance(full_url, str) else None,
        url if isinstance(url, str) else None,
    )


def answer_transaction(entries: Sequence[Entry], assessment: Resource, location: str) -> Resource:
    """Return the transaction-response: each entry was read, and a RiskAssessment was created."""
    read = [{"response": {"status": "200 OK"}} for _ in entries]
    created = {
        "resource": assessment,
        "response": {"status": "201 Created", "location": location},
    }
    return {"resourceType": "Bundle", "type": "transaction-response", "entry": [*read, created]}
