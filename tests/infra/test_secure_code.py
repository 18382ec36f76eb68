"""Shipped code calls nothing that executes text, weakens a cipher, or trusts any certificate."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.infra.cluster_objects import PROJECT

SHIPPED = ("serving", "flows", "feature_repo", "mlruns_config", "monitoring", "infra")
#: Ruff's rules of flake8-bandit: exec, pickle and marshal, weak hashes and ciphers, eval, mktemp,
#: telnet, FTP, unverified TLS, unsafe YAML, shells, wildcards, loose SSH keys.
DANGEROUS = (
    *("S102", "S301", "S302", "S303", "S304", "S305", "S306", "S307", "S312", "S321", "S323"),
    *("S324", "S501", "S502", "S503", "S504", "S505", "S506", "S507", "S508", "S509"),
    *("S602", "S604", "S605", "S609", "S612"),
)
#: Files whose statements contain names of tables, columns or locks: constants of the code.
#: Values are bound parameters there too. A new file is read before it is added.
BUILT_FROM_CONSTANTS = {
    "feature_repo/postgres_reader.py",
    "flows/runtime/locks.py",
    "serving/database/migrations/versions/0008_clinician_override.py",
    "serving/database/migrations/versions/0009_queue_order.py",
    "serving/database/online.py",
    "serving/releases/rollout_evidence.py",
    "serving/screening/recorder.py",
}


def find_uses(folders: tuple[str, ...], rules: tuple[str, ...]) -> dict[str, set[str]]:
    """Return the rules that each file breaks, whatever a `noqa` permits."""
    command = [
        *(str(Path(sys.executable).with_name("ruff")), "check", "--isolated", "--no-cache"),
        *("--ignore-noqa", "--select", ",".join(rules), "--output-format", "json"),
        *folders,
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False)
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, set[str]] = {}
    for one in json.loads(done.stdout):
        path = Path(one["filename"])
        name = path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path
        found.setdefault(name.as_posix(), set()).add(one["code"])
    return found


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("exec(input())", "S102"),
        ("import pickle; pickle.loads(input())", "S301"),
        ("import hashlib; hashlib.md5(b'')", "S324"),
        ("import httpx; httpx.get('https://x', verify=False)", "S501"),
        ("import subprocess; subprocess.run(input(), shell=True)", "S602"),
        ("import yaml; yaml.load(input(), yaml.Loader)", "S506"),
    ],
)
def test_a_dangerous_call_is_found(tmp_path: Path, line: str, rule: str) -> None:
    path = tmp_path / "planted.py"
    path.write_text(f"{line}  # noqa\n")

    assert find_uses((str(path),), DANGEROUS) == {path.as_posix(): {rule}}


def test_shipped_code_uses_no_dangerous_function() -> None:
    assert find_uses(SHIPPED, DANGEROUS) == {}


def test_every_statement_that_is_built_from_text_is_listed() -> None:
    assert set(find_uses(SHIPPED, ("S608",))) == BUILT_FROM_CONSTANTS
