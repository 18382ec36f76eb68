"""The Markdown documents keep the house rule of English (CONTRIBUTING.md, section English)."""

from itertools import chain
from pathlib import Path

import pytest

from tests.fixtures.house_english import find_breaches

PROJECT = Path(__file__).parents[1]
#: The documents under the rule. CONTRIBUTING.md quotes the rule and is left out.
PATTERNS = ("*.md", "*/README.md", "flows/*/README.md", "serving/*/README.md", "infra/**/*.md")
DOCUMENTS = sorted(
    set(chain.from_iterable(map(PROJECT.glob, PATTERNS))) - {PROJECT / "CONTRIBUTING.md"}
)


@pytest.mark.parametrize(
    "sentence",
    [
        "Nobody computes the feature.",
        "A webhook hears how a run\nends.",
        "The worker is\ntold of a withdrawal.",
        "The gate's verdict is final.",
        "`GET /health` answers 503.",
        "The cache remembers [it](x.md).",
    ],
)
def test_a_planted_sentence_is_found(sentence: str) -> None:
    assert find_breaches(f"# Title\n\n{sentence}\n")


def test_a_breach_names_line_reason_and_alternative() -> None:
    (breach,) = find_breaches("# Title\n\n```\nnobody\n```\nThe flow runs,\nand nobody waits.\n")

    assert breach.startswith("line 7: 'nobody'")
    assert "passive" in breach


@pytest.mark.parametrize(
    "text", ["`nobody`", "[user](whoever.md)", "```\ntold\n```", "- a\n  ```\n  told\n  ```\n"]
)
def test_code_and_link_targets_are_left_out(text: str) -> None:
    assert find_breaches(text) == []


def test_the_documents_under_the_rule_are_found() -> None:
    names = {path.relative_to(PROJECT).as_posix() for path in DOCUMENTS}
    assert {"README.md", "CHANGELOG.md", "serving/README.md", "infra/adr/README.md"} <= names
    assert {"flows/sources/README.md", "infra/runbooks/deploy.md", "tests/README.md"} <= names


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_a_document_keeps_the_house_rule(path: Path) -> None:
    breaches = find_breaches(path.read_text(encoding="utf-8"))
    assert breaches == [], "\n".join(breaches)


def test_the_front_page_stays_short() -> None:
    assert len((PROJECT / "README.md").read_text(encoding="utf-8").splitlines()) < 120
