"""Writes the JSON schemas beside this file from the operators' own definitions.

    python -m tests.infra.crds.vendor [--checkout cert-manager/cert-manager=/path/to/repo ...]

Without a checkout the repository is cloned. Each schema names the commit it is from. Descriptions
are left out, and unknown fields are refused as the API server prunes them.
"""

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

FOLDER = Path(__file__).parent
#: Repository: file of its definitions and the kinds of it that the manifests use.
SOURCES = {
    "cloudnative-pg/cloudnative-pg": [
        "config/crd/bases/postgresql.cnpg.io_clusters.yaml",
        "config/crd/bases/postgresql.cnpg.io_databases.yaml",
        "config/crd/bases/postgresql.cnpg.io_poolers.yaml",
    ],
    "cert-manager/cert-manager": ["deploy/crds/cert-manager.io_clusterissuers.yaml"],
    "kubernetes-sigs/gateway-api": [
        "config/crd/standard/gateway.networking.k8s.io_gateways.yaml",
        "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
    ],
    "envoyproxy/gateway": [
        f"charts/gateway-helm/charts/crds/crds/generated/gateway.envoyproxy.io_{kind}.yaml"
        for kind in ("backendtrafficpolicies", "httproutefilters")
    ],
    "external-secrets/external-secrets": [
        "config/crds/bases/external-secrets.io_externalsecrets.yaml",
        "config/crds/bases/external-secrets.io_clustersecretstores.yaml",
    ],
}

Schema = dict[str, Any]


def make_json_schema(node: Schema, *, top: bool = False) -> Schema:
    """Return the JSON schema of a definition's OpenAPI schema; unknown fields are refused."""
    kept = {
        name: value
        for name, value in node.items()
        if name in ("type", "enum", "pattern", "required", "minimum", "maximum", "format")
        or name.startswith(("min", "max"))
    }
    # Only what every validator knows: int32 and the like say nothing in JSON.
    kept.pop("format", None)
    if node.get("x-kubernetes-int-or-string"):
        kept["type"] = ["integer", "string"]
    elif node.get("nullable") and "type" in kept:
        kept["type"] = [kept["type"], "null"]
    for name in ("anyOf", "oneOf", "allOf"):
        if name in node and not node.get("x-kubernetes-int-or-string"):
            kept[name] = [make_json_schema(one) | {} for one in node[name]]
    if "items" in node:
        kept["items"] = make_json_schema(node["items"])
    if isinstance(node.get("additionalProperties"), dict):
        kept["additionalProperties"] = make_json_schema(node["additionalProperties"])
    if "properties" in node:
        kept["properties"] = {n: make_json_schema(v) for n, v in node["properties"].items()}
        loose = node.get("x-kubernetes-preserve-unknown-fields")
        if node.get("type") == "object" and not loose and "additionalProperties" not in kept:
            kept["additionalProperties"] = False
    if top:
        kept["properties"]["metadata"] = {"type": "object"}
    return kept


def read_definition(text: str) -> dict[str, Schema]:
    """Return the schema of every served version by `apiVersion Kind`."""
    found = {}
    for definition in yaml.safe_load_all(text):
        if not definition:
            continue
        spec = definition["spec"]
        for version in spec["versions"]:
            if version["served"]:
                name = f"{spec['group']}/{version['name']} {spec['names']['kind']}"
                schema = version["schema"]["openAPIV3Schema"]
                found[name] = make_json_schema(schema, top=True)
    return found


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    ).stdout


def clone(repository: str, folder: Path) -> Path:
    url = f"https://github.com/{repository}"
    subprocess.run(["git", "clone", "--quiet", "--depth=1", url, str(folder)], check=True)
    return folder


def vendor(repository: str, checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD").strip()
    schemas: dict[str, Schema] = {}
    for path in SOURCES[repository]:
        schemas |= read_definition(git(checkout, "show", f"HEAD:{path}"))
    kept = {"source": f"https://github.com/{repository}", "commit": commit, "schemas": schemas}
    target = FOLDER / f"{repository.partition('/')[2]}.json"
    target.write_text(json.dumps(kept, sort_keys=True, separators=(",", ":")) + "\n")
    print(f"{target.name}: {', '.join(sorted(schemas))}")  # noqa: T201 - a developer's command


def run(
    checkout: Annotated[
        list[str] | None, typer.Option(help="owner/name=folder of a clone that is at hand.")
    ] = None,
) -> None:
    """Write the schemas anew."""
    at_hand = dict(one.split("=", 1) for one in checkout or [])
    for repository in SOURCES:
        with tempfile.TemporaryDirectory() as folder:
            place = at_hand.get(repository) or clone(repository, Path(folder) / "clone")
            vendor(repository, Path(place))


if __name__ == "__main__":
    typer.run(run)
