"""The description of a release's registered version: what it is for, and where all of it is.

Links are those of MLflow's own pages, without a host: they hold under whatever name the server
is reached.
"""

from collections.abc import Iterator

from mlruns_config.manifest import RELEASE_MODEL, ReleaseManifest
from mlruns_config.pages import locate_run, locate_version

#: What MLflow keeps of a description on PostgreSQL.
DESCRIPTION_LIMIT = 5000


def describe_version(card: str, manifest: ReleaseManifest, experiment_id: str) -> str:
    """Return the card up to its data, then a link or a value for everything it was made of.

    `experiment_id` is that of the training run.
    """
    purpose, _, _ = card.partition("\n## Data\n")
    links = "\n".join(["## Made of", "", *_list_links(manifest, experiment_id)])
    room = DESCRIPTION_LIMIT - len(links) - 2
    return f"{purpose.strip()[:room]}\n\n{links}"


def _list_links(manifest: ReleaseManifest, experiment_id: str) -> Iterator[str]:
    def locate(artifact: str = "") -> str:
        return locate_run(experiment_id, manifest.training_run_id, artifact)

    lineage = manifest.lineage
    yield f"- [The whole model card]({locate('model_card.html')})"
    yield f"- [Training run]({locate()}): parameters, metrics, plots"
    yield f"- [Datasets]({locate()}), as Delta versions: {_name_tables(lineage.get('tables', {}))}"
    yield f"- Validation: {_link_validation(lineage.get('validation', {}))}"
    contract = lineage.get("feature_service_hash", "unknown")
    yield f"- FeatureService `{manifest.feature_service}`, definition `{contract}`"
    yield f"- Code: commit `{lineage.get('git_commit', 'unknown')}`"
    yield f"- Flow run: {_link_flow_run(lineage)}"
    yield f"- [Environment]({locate('environment/packages.txt')}), every package by version"
    yield f"- Members: {', '.join(_link_members(manifest)) or 'none'}"
    yield f"- [Manifest]({locate('release/release.json')}) of {RELEASE_MODEL}, with every hash"


def _name_tables(tables: dict[str, dict[str, object]]) -> str:
    versioned = [f"{name}@{table['version']}" for name, table in tables.items() if table["version"]]
    return ", ".join(versioned) or "none"


def _link_validation(validation: dict[str, str]) -> str:
    if not validation:
        return "**none of exactly these versions**"
    result = "passed" if validation["success"] == "true" else "failed"
    page = locate_run(validation["experiment_id"], validation["run_id"], "validation.html")
    return f"[Great Expectations results]({page}), {result}"


def _link_flow_run(lineage: dict[str, str]) -> str:
    run_id, url = lineage.get("flow_run_id"), lineage.get("flow_run_url")
    return f"[{run_id}]({url})" if run_id and url else f"`{run_id or 'none'}`"


def _link_members(manifest: ReleaseManifest) -> Iterator[str]:
    for pin in manifest.members:
        name = f"{pin.registered_model} {pin.version}"
        yield f"[{name}]({locate_version(pin.registered_model, pin.version)})"
