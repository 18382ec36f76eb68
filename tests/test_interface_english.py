"""Texts that people read outside of documents keep the house rule of English too.

OpenAPI, metrics, alerts, dashboards, Prefect, help of commands, pages of the console, model card.
"""

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from prometheus_client import REGISTRY

import monitoring.metrics  # noqa: F401 (registers the metrics)
from serving.app import create_app
from tests.fixtures.api import MemoryReader, make_settings
from tests.fixtures.deployments import DECLARED, load_flow
from tests.fixtures.house_english import find_breaches

PROJECT = Path(__file__).parents[1]
TEXT_KEYS = ("description", "summary", "title", "runbook", "text")
COMMANDS = (
    *("serving.tokens.__main__", "serving.audit.__main__", "serving.database.migrate"),
    *("mlruns_config.registry.commands", "infra.cluster.secrets"),
)
#: A clinician's own judgement, names of fields, and the questionnaires' own wording.
QUOTED = re.compile(
    r"own judgement|^Noticed At$|^Notices$|for whom a release|than you know|if you know"
)


def walk_texts(node: Any) -> Iterator[str]:
    """Yield the texts under the keys that hold prose in a JSON or YAML document."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in TEXT_KEYS and isinstance(value, str):
                yield value
            else:
                yield from walk_texts(value)
    elif isinstance(node, list):
        for part in node:
            yield from walk_texts(part)


def list_openapi() -> Iterator[str]:
    settings = make_settings("postgresql://x@127.0.0.1:1/x", "http://127.0.0.1:1")
    yield from walk_texts(create_app(settings, MemoryReader()).openapi())


def list_metrics() -> Iterator[str]:
    for metric in REGISTRY.collect():
        if metric.name.startswith("mhras"):
            yield metric.documentation


def list_yaml(*patterns: str) -> Iterator[str]:
    for pattern in patterns:
        for path in sorted(PROJECT.glob(pattern)):
            for document in yaml.safe_load_all(path.read_text()):
                yield from walk_texts(document)


def list_dashboards() -> Iterator[str]:
    for path in sorted(PROJECT.glob("monitoring/grafana/**/*.json")):
        yield from walk_texts(json.loads(path.read_text()))


def list_flows() -> Iterator[str]:
    for declared in DECLARED:
        yield str(declared["description"])
        yield load_flow(declared).description or ""


def list_helps() -> Iterator[str]:
    for line in (PROJECT / "Makefile").read_text().splitlines():
        if "## " in line:
            yield line.partition("## ")[2]
    for module in COMMANDS:
        app = getattr(importlib.import_module(module), "app", None)
        if isinstance(app, typer.Typer):
            yield from walk_command(typer.main.get_command(app))


def walk_command(command: Any) -> Iterator[str]:
    yield command.help or ""
    yield from (getattr(one, "help", None) or "" for one in command.params)
    for inner in getattr(command, "commands", {}).values():
        yield from walk_command(inner)


def list_pages() -> Iterator[str]:
    for path in sorted(PROJECT.glob("serving/console/templates/*.html")):
        yield re.sub(r"\{[{%#].*?[}%#]\}|<[^>]*>", " ", path.read_text(), flags=re.DOTALL)


SOURCES = {
    "OpenAPI": list_openapi,
    "metrics": list_metrics,
    "alerts": lambda: list_yaml("monitoring/prometheus/**/*.yaml"),
    "dashboards": list_dashboards,
    "flows": list_flows,
    "help": list_helps,
    "pages": list_pages,
}


@pytest.mark.parametrize("source", SOURCES)
def test_the_texts_of_an_interface_keep_the_house_rule(source: str) -> None:
    texts = sorted(set(SOURCES[source]()))
    breaches = {
        text[:90]: find_breaches(text)
        for text in texts
        if find_breaches(text) and not QUOTED.search(text)
    }

    assert len(texts) > 5
    assert breaches == {}
