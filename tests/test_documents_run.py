"""The commands of the rooms' READMEs run as written against `make run`. Minutes, so nightly.

Blocks marked `sh` are executed, those of one document in one shell, in order; blocks without a
mark need a cluster or values of the reader's own.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.local.postgres import remove_root_state
from infra.local.secrets import read_env_file
from tests.fixtures.local_runs import read_until_ready, start_local_run

pytestmark = pytest.mark.nightly

PROJECT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
API = "http://127.0.0.1:8000"
#: In this order: flows trains the release that mlruns_config moves. Beside each, what must appear.
DOCUMENTS = {
    "serving/README.md": ('"needs_review":true', "/console/sign-in"),
    "serving/fhir/README.md": ('"cards":[{', '"recorded":1', '"resourceType":"Provenance"'),
    "feature_repo/README.md": (),
    "flows/README.md": ("Staging", "with the outcome"),
    "mlruns_config/README.md": ("mhras-risk 2 is in Production",),
    "infra/README.md": (),
}
#: Problem documents and OperationOutcomes: curl ends well after either.
REFUSALS = ("urn:mhras:problem", '"OperationOutcome"', "Traceback")


@dataclass(frozen=True)
class Checkout:
    """A folder with the project's files and a running stack; `api` is its address."""

    folder: Path
    api: str


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """The project as a clone has it, with `.mhras` of a first `make run`, and the stack running."""
    folder = tmp_path_factory.mktemp("checkout")
    for entry in PROJECT.iterdir():
        if not entry.name.startswith("."):
            (folder / entry.name).symlink_to(entry)
    state = folder / ".mhras"
    stack = start_local_run(folder, state, "--people", "1500")
    shown = read_until_ready(stack)
    (api,) = re.findall(r"(http://\S+)/docs", shown)
    yield Checkout(folder, api)
    stack.send_signal(signal.SIGINT)
    stack.communicate(timeout=120)
    remove_root_state(state / "postgres")


def run_blocks(document: str, checkout: Checkout) -> str:
    """Return what the document's blocks print in one shell with the variables of the stack."""
    blocks = BLOCK.findall((PROJECT / document).read_text(encoding="utf-8"))
    script = "\n".join(["set -e -o pipefail", *blocks]).replace(API, checkout.api)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = os.environ | read_env_file(checkout.folder / ".mhras" / "env") | {"PATH": path}
    finished = subprocess.run(
        ["bash", "-c", script],
        cwd=checkout.folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=3600,
    )
    printed = finished.stdout + finished.stderr
    assert finished.returncode == 0, printed[-4000:]
    return printed


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_commands_of_a_document_run_as_written(checkout: Checkout, document: str) -> None:
    printed = run_blocks(document, checkout)

    assert [text for text in DOCUMENTS[document] if text not in printed] == [], printed[-4000:]
    assert [text for text in REFUSALS if text in printed] == [], printed[-4000:]
