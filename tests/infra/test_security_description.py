"""The tables of the security description are those of the code, so none can fall behind."""

import ast
import re
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from flows.lake.tables import QUARANTINE, TABLES
from flows.sources.unpacking import MAX_FILE_BYTES, MOST_RATIO
from serving.database.tables import Base
from serving.fhir import bundles, client_tokens, hooks, searching
from serving.http.middleware import MAX_BODY_BYTES
from serving.roles import PERMISSIONS, Permission, Role
from serving.screening.batch import MAX_ITEMS
from serving.settings import Settings
from tests.infra.cluster_objects import PROJECT, render

PAGE = (PROJECT / "infra" / "runbooks" / "security-description.md").read_text(encoding="utf-8")
SHIPPED = ("serving", "flows", "feature_repo", "mlruns_config", "monitoring", "infra")
#: Modules that offer cryptography; a new one is added here with the first file that uses it.
CRYPTOGRAPHY = {"authlib", "cryptography", "hashlib", "hmac", "jwt", "pyrage", "secrets", "ssl"}
#: Packages that would be a second implementation of the same.
OTHER_IMPLEMENTATIONS = {"Crypto", "Cryptodome", "M2Crypto", "OpenSSL", "ecdsa", "nacl", "rsa"}
#: Settings that hold an address or a name of another service.
ADDRESS = re.compile(r"(_url|_uri|_issuer|_address|_locations)$")
WORKLOADS = ("Cluster", "CronJob", "DaemonSet", "Deployment", "Job", "Pooler", "StatefulSet")


def read_table(heading: str) -> dict[str, list[str]]:
    """Return the cells of each row of a section's last table, by its first cell."""
    section = PAGE.split(f"\n## {heading}\n")[1].partition("\n## ")[0]
    lines = section.rpartition("|---")[2].splitlines()[1:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line]
    return {row[0].strip("`"): row[1:] for row in rows if len(row) > 1}


def list_imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def find_imports() -> dict[str, set[str]]:
    """Return the top packages that each shipped file imports."""
    paths = (path for folder in SHIPPED for path in (PROJECT / folder).rglob("*.py"))
    return {
        path.relative_to(PROJECT).as_posix(): set(list_imports(ast.parse(path.read_bytes())))
        for path in paths
    }


def test_every_file_with_cryptography_is_listed_with_what_it_uses() -> None:
    used = {path: modules & CRYPTOGRAPHY for path, modules in find_imports().items()}
    listed = {path: set(cells[0].split(", ")) for path, cells in read_table("Cryptography").items()}

    assert listed == {path: modules for path, modules in used.items() if modules}


def test_no_second_implementation_of_cryptography_is_imported() -> None:
    imports = find_imports()
    assert {path for path, used in imports.items() if used & OTHER_IMPLEMENTATIONS} == set()


def test_every_secret_setting_is_in_the_list_of_keys() -> None:
    secrets = {
        name.upper()
        for name, field in Settings.model_fields.items()
        if SecretStr.__name__ in str(field.annotation)
    }
    assert secrets <= set(read_table("Keys"))


def test_every_address_among_the_settings_is_in_the_list_of_services() -> None:
    addresses = {name.upper() for name in Settings.model_fields if ADDRESS.search(name)}
    assert set(read_table("Outside services")) == addresses


def test_every_table_has_a_class() -> None:
    classes = {name.strip("` "): cells[0] for name, cells in read_table("Data classes").items()}
    lake = {f"lake `{name}" for name in [*TABLES, QUARANTINE]}

    assert set(Base.metadata.tables) | lake <= set(classes)
    assert {kind.partition(":")[0] for kind in classes.values()} == {
        "health",
        "account",
        "operation",
    }


def test_every_table_with_a_pseudonym_is_of_health_or_accounts() -> None:
    classes = {name.strip("` "): cells[0] for name, cells in read_table("Data classes").items()}
    about_people = {
        name for name, table in Base.metadata.tables.items() if "anonymized_id" in table.columns
    }
    assert {name for name in about_people if classes[name] == "operation"} == set()


def test_every_workload_is_in_the_list_of_logs() -> None:
    listed = {name for cell in read_table("Logs") for name in re.findall(r"[\w-]+", cell)}
    running = {
        re.sub(r"-v\d+-\d+-\d+$", "", one["metadata"]["name"])
        for one in render("production")
        if one["kind"] in WORKLOADS
    }
    assert running - listed == set()


def test_the_limits_are_those_of_the_code() -> None:
    rows = {name: cells[0] for name, cells in read_table("Limits").items()}
    fields = Settings.model_fields

    assert rows["requests"].startswith(
        f"{fields['rate_limit_per_minute'].default} a minute, "
        f"{fields['rate_limit_per_second'].default} a second"
    )
    assert rows["body of a request"] == f"{MAX_BODY_BYTES // 2**20} MiB"
    assert rows["people in a batch"] == str(MAX_ITEMS)
    assert bundles.MOST_ENTRIES == hooks.MOST_ENTRIES
    assert rows["entries of a transaction Bundle, or of a prefetch"] == str(bundles.MOST_ENTRIES)
    assert rows["results of a search"] == str(searching.MOST_RESULTS)
    assert rows["screenings at once"].startswith(str(fields["max_concurrent_screenings"].default))
    assert rows["time of a screening"].startswith(f"{fields['screening_timeout'].default:g} s")
    assert rows["time of any other request"].startswith(f"{fields['request_timeout'].default:g} s")
    assert rows["a file of a drop"] == (
        f"{MAX_FILE_BYTES // 2**30} GiB, plain or unpacked; {MOST_RATIO} times its packed size"
    )


def test_the_time_outs_of_a_session_are_those_of_the_settings() -> None:
    fields = Settings.model_fields
    idle, whole = fields["console_idle_minutes"].default, fields["console_session_hours"].default

    assert f"after {idle} minutes without a request and after {whole} hours" in PAGE
    minutes = client_tokens.MAX_LIFETIME_SECONDS // 60
    assert f"at most {minutes} minutes old" in PAGE


@pytest.mark.parametrize(
    ("field", "permission"),
    [
        ("score, band, probabilities, reasons", Permission.VIEW_PREDICTIONS),
        ("answers to single items", Permission.VIEW_ANSWERS),
        ("inputs of the models, without item answers", Permission.VIEW_PREDICTIONS),
    ],
)
def test_fields_are_open_to_the_roles_with_the_permission(
    field: str, permission: Permission
) -> None:
    columns = (Role.CLINICIAN, Role.DATA_SCIENTIST, Role.AUDITOR, Role.ADMIN)
    allowed = ["yes" if permission in PERMISSIONS[role] else "no" for role in columns]

    assert read_table("Fields by role")[field] == allowed
