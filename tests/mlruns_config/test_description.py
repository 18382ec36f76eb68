"""The description of a version: one click to everything a release was made of."""

import re

import pytest

from mlruns_config.description import DESCRIPTION_LIMIT, describe_version
from mlruns_config.heads import Stacker
from mlruns_config.manifest import MemberPin, ReleaseManifest
from mlruns_config.pages import VIEW
from tests.fixtures.manifests import make_manifest

CARD = "# Model card: mhras-risk\n\nIt is **not clinically validated**.\n\n## Data\n\nMuch of it."
LINEAGE = {
    "tables": {"surveys": {"version": 3, "rows": 9}, "outcomes": {"version": None, "rows": 0}},
    "validation": {"run_id": "run-7", "experiment_id": "4", "success": "true"},
    "feature_service_hash": "f" * 64,
    "git_commit": "c" * 40,
    "flow_run_id": "flow-9",
    "flow_run_url": "http://127.0.0.1:4200/runs/flow-run/flow-9",
}
RUN = "#/experiments/2/runs/" + "0" * 32


def make_release(**lineage) -> ReleaseManifest:
    pin = MemberPin(
        name="tft", registered_model="mhras-tft", version=5, run_id="0" * 32, artifacts={}
    )
    stacker = Stacker(intercept=0, coefficients={"tft": 1})
    return make_manifest(lineage=LINEAGE | lineage, members=[pin], stacker=stacker)


@pytest.mark.parametrize(
    ("lineage", "words"),
    [
        ({"validation": {}}, "Validation: **none of exactly these versions**"),
        (
            {"validation": LINEAGE["validation"] | {"success": "false"}},
            f"validation.html?{VIEW}), failed",
        ),
        ({"flow_run_id": "", "flow_run_url": ""}, "Flow run: `none`"),
        ({"flow_run_url": ""}, "Flow run: `flow-9`"),
    ],
)
def test_what_is_not_known_is_said(lineage, words):
    assert words in describe_version(CARD, make_release(**lineage), "2")


@pytest.mark.parametrize(
    "link",
    [
        f"[The whole model card]({RUN}/artifacts/model_card.html?{VIEW})",
        f"[Training run]({RUN}?{VIEW})",
        f"[Datasets]({RUN}?{VIEW}), as Delta versions: surveys@3\n",
        f"results](#/experiments/4/runs/run-7/artifacts/validation.html?{VIEW}), passed",
        f"FeatureService `screening_v1`, definition `{'f' * 64}`",
        f"commit `{'c' * 40}`",
        "[flow-9](http://127.0.0.1:4200/runs/flow-run/flow-9)",
        f"[Environment]({RUN}/artifacts/environment/packages.txt?{VIEW})",
        f"[mhras-tft 5](#/models/mhras-tft/versions/5?{VIEW})",
        f"[Manifest]({RUN}/artifacts/release/release.json?{VIEW})",
    ],
)
def test_everything_a_release_was_made_of_is_one_click_away(link):
    assert link in describe_version(CARD, make_release(), "2")


def test_a_description_fits_says_its_limits_and_keeps_its_links():
    for card in (CARD, CARD.replace("# Model", "# " + "x" * 9000 + "\n\nModel")):
        description = describe_version(card, make_release(), "2")
        assert len(description) <= DESCRIPTION_LIMIT == 5000
        assert description.endswith("with every hash")
        assert "## Data" not in description
    assert "**not clinically validated**" in describe_version(CARD, make_release(), "2")


def test_links_name_no_host_but_prefects():
    description = describe_version(CARD, make_release(), "2")
    hosts = [link for link in re.findall(r"\]\((.*?)\)", description) if not link.startswith("#/")]
    assert hosts == ["http://127.0.0.1:4200/runs/flow-run/flow-9"]
