"""The API's operations: a change of one is deliberate, and listed in the changelog."""

import json
from pathlib import Path

LISTED = Path(__file__).parents[1] / "fixtures" / "openapi_operations.json"


def test_the_operations_are_those_that_are_listed(client):
    described = {
        f"{method.upper()} {path}": {
            "parameters": sorted(
                f"{one['in']} {one['name']}" for one in item.get("parameters", [])
            ),
            "responses": sorted(item["responses"]),
        }
        for path, methods in client.app.openapi()["paths"].items()
        for method, item in methods.items()
    }

    assert described == json.loads(LISTED.read_text())
