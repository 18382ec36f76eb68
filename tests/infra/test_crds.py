"""Objects of operators against the operators' own schemas (crds/vendor.py says from where)."""

import json
from functools import lru_cache
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.infra.cluster_objects import FOLDERS, K8S, Manifest, describe, is_built_in, render

SCHEMAS = Path(__file__).parent / "crds"
#: Kinds whose definition could not be had; named by `make -C infra validate` too.
WITHOUT_SCHEMA = {("cilium.io/v2", "CiliumNetworkPolicy")}


@lru_cache
def read_schemas() -> dict[tuple[str, str], Manifest]:
    return {
        tuple(name.split(" ")): schema
        for path in SCHEMAS.glob("*.json")
        for name, schema in json.loads(path.read_text())["schemas"].items()
    }


def check(one: Manifest) -> None:
    schema = read_schemas()[one["apiVersion"], one["kind"]]
    jsonschema.Draft202012Validator(schema).validate(one)


def make_pooler(**spec: object) -> Manifest:
    return {
        "apiVersion": "postgresql.cnpg.io/v1",
        "kind": "Pooler",
        "metadata": {"name": "a"},
        "spec": {"cluster": {"name": "b"}, "pgbouncer": {"poolMode": "session"}} | spec,
    }


@pytest.mark.parametrize(
    "spec",
    [{"replicas": 2}, {"instances": "two"}, {"pgbouncer": {"poolMode": "statement"}}],
)
def test_a_field_or_value_that_an_operator_does_not_know_is_refused(spec: Manifest) -> None:
    check(make_pooler())
    with pytest.raises(jsonschema.ValidationError):
        check(make_pooler(**spec))


@pytest.mark.parametrize("deployment", FOLDERS)
def test_every_operator_s_object_fits_the_operator_s_schema(deployment: str) -> None:
    for one in [one for one in render(deployment) if not is_built_in(one)]:
        if (one["apiVersion"], one["kind"]) in WITHOUT_SCHEMA:
            assert deployment == "cilium"
            continue
        try:
            check(one)
        except jsonschema.ValidationError as error:
            pytest.fail(f"{describe(one)}: {error.json_path}: {error.message}")


def test_the_vault_example_fits_the_schema_of_external_secrets() -> None:
    text = (K8S / "examples" / "external-secrets.yaml").read_text()
    documents = list(yaml.safe_load_all(text))
    assert {one["kind"] for one in documents} == {"ClusterSecretStore", "ExternalSecret"}
    for one in documents:
        check(one)


def test_every_vendored_schema_names_its_source_and_commit() -> None:
    for path in SCHEMAS.glob("*.json"):
        kept = json.loads(path.read_text())
        assert kept["source"].startswith("https://github.com/")
        assert len(kept["commit"]) == 40
