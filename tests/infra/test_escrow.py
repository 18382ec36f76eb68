"""Secrets in escrow: only the private key opens them, and they come back as they were."""

import base64
from pathlib import Path

import pytest
import yaml
from sqlalchemy import make_url
from typer.testing import CliRunner

from infra.backup.encryption import EncryptionError, make_key_pair
from infra.cluster.escrow import (
    EscrowError,
    app,
    get_value,
    keep_escrow,
    make_restore_secret,
    open_escrow,
    open_sealed,
    read_cluster_secrets,
    seal_secrets,
)
from tests.infra.cluster_objects import (
    Manifest,
    describe,
    find,
    find_job,
    get_app,
    get_main_container,
    get_template,
    list_secrets,
    list_workloads,
    render,
)

PUBLIC, PRIVATE = make_key_pair()


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key.txt"
    path.write_text(PRIVATE)
    return path


def test_another_key_or_a_changed_byte_opens_nothing(tmp_path: Path, key: Path) -> None:
    sealed = seal_secrets(list_secrets("production"), PUBLIC)
    (tmp_path / "other.txt").write_text(make_key_pair()[1])
    changed = bytearray(sealed)
    changed[-1] ^= 1
    for one, file in ((sealed, tmp_path / "other.txt"), (bytes(changed), key)):
        with pytest.raises(EncryptionError, match="wrong key, or it was changed"):
            open_sealed(one, file)


def test_what_is_sealed_holds_no_readable_value_and_comes_back_whole(key: Path) -> None:
    made = list(list_secrets("production"))
    sealed = seal_secrets(made, PUBLIC)
    password = get_value(made, "mhras-secrets", "jwt_secret_key")
    assert password.encode() not in sealed
    assert open_sealed(sealed, key) == made


def test_the_newest_copy_is_the_one_that_is_opened(tmp_path: Path, key: Path) -> None:
    first, second = [list(list_secrets(name)) for name in ("staging", "production")]
    keep_escrow(str(tmp_path), first, PUBLIC)
    (old,) = (tmp_path / "escrow").glob("*.age")
    old.rename(old.with_name("20260101T000000Z.age"))
    keep_escrow(str(tmp_path), second, PUBLIC)
    assert open_escrow(str(tmp_path), key) == second


def print_as_kubectl(secrets: list[Manifest]) -> str:
    """What `kubectl get secrets -A -o yaml` prints: data in base64, fields of the server."""
    items = [
        {name: value for name, value in one.items() if name != "stringData"}
        | {
            "data": {
                name: base64.b64encode(value.encode()).decode()
                for name, value in one["stringData"].items()
            },
            "metadata": one["metadata"] | {"resourceVersion": "17", "uid": "u"},
        }
        for one in secrets
    ]
    return yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": items})


def test_secrets_of_a_running_cluster_are_sealed_and_opened_by_the_command(
    tmp_path: Path, key: Path
) -> None:
    made = list(list_secrets("production"))
    variables = {"BACKUP_URL": str(tmp_path), "BACKUP_RECIPIENTS": PUBLIC}
    sealed = CliRunner().invoke(app, ["seal"], input=print_as_kubectl(made), env=variables)
    assert sealed.exit_code == 0, sealed.output
    opened = CliRunner().invoke(
        app, ["open"], env={"BACKUP_URL": str(tmp_path), "BACKUP_IDENTITY_FILE": str(key)}
    )
    assert list(yaml.safe_load_all(opened.stdout)) == made


def test_an_empty_list_is_no_escrow() -> None:
    with pytest.raises(EscrowError, match="no Secret was given"):
        read_cluster_secrets("apiVersion: v1\nkind: List\nitems: []\n")


# The restore overlay.


def test_a_restore_needs_a_key_that_may_write(key: Path) -> None:
    with pytest.raises(EscrowError, match="RESTORE_STORAGE_KEY_ID, RESTORE_STORAGE_KEY not set"):
        make_restore_secret(list_secrets("production"), key, {})


def make_restore(key: Path) -> Manifest:
    given = {"RESTORE_STORAGE_KEY_ID": "id", "RESTORE_STORAGE_KEY": "key"}
    return make_restore_secret(list_secrets("production"), key, given)


def test_the_restore_logs_in_as_each_owner_by_urls_that_libpq_reads(key: Path) -> None:
    urls = make_restore(key)["stringData"]["database_urls"].split(",")
    found = [make_url(url) for url in urls]
    assert [url.username for url in found] == ["mhras", "mlflow", "prefect", "feast"]
    assert {(url.drivername, url.host) for url in found} == {("postgresql", "mhras-postgres-rw")}
    assert {str(url.query["sslmode"]) for url in found} == {"verify-ca"}
    assert all("ssl" not in url.query for url in found)


def test_the_restore_job_is_given_all_that_it_asks_for(key: Path) -> None:
    job = find_job("restore", "mhras-restore")
    made = make_restore(key)
    pod = get_template(job)["spec"]
    asked = {
        one["valueFrom"]["secretKeyRef"]["key"]
        for one in get_main_container(job)["env"]
        if "secretKeyRef" in one.get("valueFrom", {})
    }
    mounted = {
        item["key"]
        for volume in pod["volumes"]
        if volume.get("secret", {}).get("secretName") == made["metadata"]["name"]
        for item in volume["secret"]["items"]
    }
    assert asked | mounted == set(made["stringData"])
    (config,) = find("restore", "ConfigMap", "mhras-config")
    for one in get_main_container(job)["env"]:
        if reference := one.get("valueFrom", {}).get("configMapKeyRef"):
            assert reference["key"] in config["data"] or reference.get("optional")


def test_the_restore_overlay_starts_nothing_that_would_fill_what_must_be_empty() -> None:
    """Servers that start make tables, and a restore never overwrites."""
    assert {get_app(one) for one in list_workloads("restore")} == {"mhras-restore"}
    made_before = {describe(one) for one in render("production")}
    cluster = [describe(one) for one in render("restore") if one["kind"] in ("Cluster", "Database")]
    assert len(cluster) == 4
    assert set(cluster) <= made_before
