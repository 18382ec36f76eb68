"""Keys of the object store: each may do what its program does, in the bucket it uses."""

import json
import re

from infra.cluster.secrets import EXTERNAL
from tests.infra.cluster_objects import PROJECT, find

POLICIES = json.loads((PROJECT / "infra" / "storage" / "policies.json").read_text())
BUCKET = re.compile(r"^arn:aws:s3:::([\w-]+)(/\*)?$")
#: What each program does with each bucket.
USES = {
    "mlflow": {"mhras-models": "rwd"},
    "flows": {"mhras-lake": "rwd"},
    "api": {"mhras-audit": "rw"},
    "backup": {
        "mhras-models": "r",
        "mhras-lake": "r",
        "mhras-audit": "r",
        "mhras-backups": "rwd",
    },
}
LETTERS = {"s3:GetObject": "r", "s3:PutObject": "w", "s3:DeleteObject": "d"}


def list_rights(program: str) -> dict[str, str]:
    rights: dict[str, str] = {}
    for statement in POLICIES[program]["statements"]:
        for resource in statement["Resource"]:
            bucket = BUCKET.match(resource).group(1)
            found = "".join(LETTERS.get(action, "") for action in statement["Action"])
            rights[bucket] = rights.get(bucket, "") + found
    return rights


def test_each_program_may_do_what_it_does_and_no_more() -> None:
    assert {program: list_rights(program) for program in POLICIES} == USES


def test_no_statement_names_everything() -> None:
    text = (PROJECT / "infra" / "storage" / "policies.json").read_text()
    assert '"s3:*"' not in text
    assert '"Resource": ["*"]' not in text


def test_each_policy_belongs_to_a_key_that_the_secrets_ask_for() -> None:
    assert {one["secret"] for one in POLICIES.values()} <= set(EXTERNAL)
    assert {f"{one['secret']}_ID" for one in POLICIES.values()} <= set(EXTERNAL)


def test_the_buckets_are_those_of_the_configuration() -> None:
    (config,) = find("production", "ConfigMap", "mhras-config")
    configured = {
        value.removeprefix("s3://").partition("/")[0]
        for value in config["data"].values()
        if value.startswith("s3://")
    }
    assert configured == {bucket for rights in USES.values() for bucket in rights}
