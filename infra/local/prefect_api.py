"""Prefect's API of the local stack: login, CSRF tokens, a pool that takes no commands."""

import uuid
from collections.abc import Mapping
from typing import Any

import httpx

#: The user of the login; the password is a secret of the stack.
PREFECT_USER = "mhras"

#: What a flow run's process gets. Prefect's own template also takes a command, variables and a
#: folder from whoever starts a run: each of them would run code with the stack's secrets.
POOL_TEMPLATE: dict[str, Any] = {
    "job_configuration": {
        "name": "{{ name }}",
        "labels": "{{ labels }}",
        "stream_output": "{{ stream_output }}",
    },
    "variables": {
        "type": "object",
        "properties": {
            "name": {"title": "Name", "type": "string"},
            "labels": {
                "title": "Labels",
                "type": "object",
                "additionalProperties": {"type": "string"},
            },
            "stream_output": {"title": "Stream Output", "type": "boolean", "default": True},
        },
    },
}


def make_server_settings(auth_string: str, url: str) -> dict[str, str]:
    """Return the variables of a Prefect server that answers its own pages and clients only."""
    return {
        "PREFECT_SERVER_API_AUTH_STRING": auth_string,
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": url,
    }


def request_prefect(
    environment: Mapping[str, str], method: str, path: str, body: Any = None
) -> httpx.Response:
    """Send one request with login and CSRF token; return the response with any status."""
    user, _, password = environment["PREFECT_API_AUTH_STRING"].partition(":")
    with httpx.Client(
        base_url=environment["PREFECT_API_URL"],
        auth=(user, password),
        timeout=30,
        trust_env=False,
    ) as client:
        headers = {} if method == "GET" else fetch_csrf_headers(client)
        return client.request(method, path, json=body, headers=headers)


def fetch_csrf_headers(client: httpx.Client) -> dict[str, str]:
    """Return the headers that a changing request needs."""
    name = uuid.uuid4().hex
    response = client.get("csrf-token", params={"client": name})
    response.raise_for_status()
    return {"Prefect-Csrf-Client": name, "Prefect-Csrf-Token": response.json()["token"]}
