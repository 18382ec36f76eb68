"""What the Dockerfile says, what it installs, and how its entry point stops as process 1."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml

from infra.cluster.compose_variables import list_variables, make_value
from infra.docker.select_locked import select_locked
from infra.local.ports import choose_port
from infra.local.stack import FLOW_THREADS
from serving.audit.signing import Signer
from tests.fixtures.api import JWT_SECRET, SALT, SIGNING_KEY
from tests.fixtures.releases import RELEASE_KEY
from tests.infra.cluster_objects import PROJECT, find, get_containers

DOCKERFILE = (PROJECT / "infra" / "docker" / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((PROJECT / "infra" / "compose.yaml").read_text())


def test_a_package_that_is_needed_and_not_locked_stops_the_build() -> None:
    with pytest.raises(KeyError, match="left-pad"):
        select_locked("numpy==2.4.6\n", "numpy==2.4.6\nleft_pad==1\n")


def test_only_locked_versions_of_what_is_needed_are_installed() -> None:
    lock = "# a comment\nPyYAML==6.0.3\nnumpy==2.4.6\ntorch==2.13.0\n"
    assert select_locked(lock, "pyyaml==6.1\nNumPy==2.5\n") == ["numpy==2.4.6", "PyYAML==6.0.3"]


def test_the_image_is_pinned_not_root_and_labelled() -> None:
    assert re.search(r"^ARG PYTHON=\S+:3\.11\.\d+-slim-bookworm$", DOCKERFILE, re.MULTILINE)
    assert "latest" not in DOCKERFILE
    assert DOCKERFILE.count("USER 1000:1000") == 2
    assert DOCKERFILE.count("HEALTHCHECK") == 2
    for label in ("title", "version", "revision", "licenses"):
        assert f"org.opencontainers.image.{label}" in DOCKERFILE


def test_the_image_that_backs_up_has_a_client_no_older_than_the_server() -> None:
    (client,) = re.findall(r"^ARG POSTGRES_CLIENT=(\d+)$", DOCKERFILE, re.MULTILINE)
    (cluster,) = find("production", "Cluster")
    server = re.search(r":(\d+)\.", cluster["spec"]["imageName"]).group(1)
    assert int(client) >= int(server)
    assert "ENV BACKUP_POSTGRES_BIN=/opt/postgresql" in DOCKERFILE


@pytest.mark.parametrize(("name", "value"), FLOW_THREADS.items())
def test_threads_of_flows_are_limited_in_the_image_as_in_the_local_stack(name, value) -> None:
    flows = DOCKERFILE.partition("FROM runtime AS mhras-flows")[2].partition("\nFROM ")[0]
    assert f"ENV {name}={value}\n" in flows


def test_both_targets_exist_and_the_cluster_uses_no_other() -> None:
    targets = set(re.findall(r"AS (mhras-\S+)$", DOCKERFILE, re.MULTILINE))
    used = {
        container["image"].rpartition("/")[2].partition(":")[0]
        for kind in ("Deployment", "Job", "CronJob")
        for workload in find("production", kind)
        for container in get_containers(workload)
        if "/mhras-" in container["image"]
    }
    assert targets == used == {"mhras-api", "mhras-flows"}


def test_the_api_needs_nothing_that_trains() -> None:
    import tomllib

    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    serving = " ".join(extras["optional-dependencies"]["serving"])
    for heavy in ("torch", "prefect", "mlflow", "feast", "pandas", "scikit-learn", "evidently"):
        assert heavy not in serving


OURS = {"migration", "mlflow", "prefect-server", "worker", "readers", "api", "backup"}


def test_every_compose_service_of_ours_is_locked_down() -> None:
    ours = {name: one for name, one in COMPOSE["services"].items() if "mhras" in one["image"]}
    assert set(ours) == OURS
    for name, service in ours.items():
        assert service["user"] == "1000:1000", name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
    for service in COMPOSE["services"].values():
        assert "latest" not in service["image"]
        assert re.search(r":\S*(\d|dev)", service["image"])


def test_every_variable_of_compose_gets_a_value_that_is_long_enough() -> None:
    variables = list_variables()
    assert {"JWT_SECRET_KEY", "SUPERUSER_PASSWORD", "GRAFANA_PASSWORD"} <= set(variables)
    values = [make_value(name) for name in variables]
    assert len(set(values)) == len(values)
    assert min(map(len, values)) >= 32


@pytest.mark.skipif(
    shutil.which("unshare") is None or os.geteuid() != 0, reason="needs unshare and root"
)
def test_as_process_1_the_entry_point_stops_when_it_is_asked_to(database_url: str) -> None:
    """A plain Python process ignores SIGTERM as process 1; ours must not wait to be killed."""
    port = choose_port(18200)
    server = subprocess.Popen(
        [
            *("unshare", "--pid", "--fork", "--kill-child"),
            *(sys.executable, "-m", "serving", "--port", str(port)),
        ],
        env=os.environ
        | {
            "DATABASE_URL": database_url,
            "JWT_SECRET_KEY": JWT_SECRET,
            "ANONYMIZATION_SALT": SALT,
            "AUDIT_SIGNING_KEY": SIGNING_KEY,
            "RELEASE_PUBLIC_KEYS": Signer(RELEASE_KEY).public_key,
            "AUDIT_CHECKPOINT_URL": "memory://audit",
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    try:
        wait_until_alive(port)
        children = subprocess.run(
            ["pgrep", "--parent", str(server.pid)], capture_output=True, text=True, check=True
        )
        (first,) = children.stdout.split()
        os.kill(int(first), signal.SIGTERM)
        server.wait(timeout=40)
    finally:
        server.kill()
        server.wait()
    assert server.returncode != -signal.SIGKILL


def wait_until_alive(port: int) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False)
        except httpx.TransportError:
            time.sleep(0.2)
        else:
            return
    pytest.fail("the API did not come up")


def test_every_file_a_module_reads_beside_itself_is_installed_with_it() -> None:
    """An installed package has Python files only, unless it is told of others."""
    import tomllib
    from fnmatch import fnmatch

    setuptools = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = setuptools["package-data"]
    folders = [PROJECT / name for name in ("feature_repo", "mlruns_config", "serving")]
    read = [
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".md", "")
    ]
    names = {path.name for path in read}

    def is_installed(path: Path) -> bool:
        package = next(one for one in path.parents if (one / "__init__.py").exists())
        dotted = ".".join(package.relative_to(PROJECT).parts)
        wanted = [*patterns["*"], *patterns.get(dotted, [])]
        return any(fnmatch(str(path.relative_to(package)), one) for one in wanted)

    assert {"gates.toml", "feature_store.yaml", "script.py.mako", "base.html"} <= names
    assert [path for path in read if not is_installed(path)] == []


@pytest.mark.nightly
@pytest.mark.skipif(os.geteuid() != 0, reason="building in a chroot takes root")
@pytest.mark.skipif(
    not all(map(shutil.which, ("buildah", "podman", "runc", "debootstrap"))),
    reason="Debian's buildah, podman, runc and debootstrap are not installed",
)
def test_the_images_build_and_start_as_user_1000_on_a_read_only_root() -> None:
    script = PROJECT / "infra" / "docker" / "prove_images.sh"
    environment = os.environ | {"PORT": str(choose_port(18900))}
    done = subprocess.run([script, "api"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "mhras-api: " in done.stdout
    assert "starts as uid 1000 with a read-only root" in done.stdout
