"""The Markdown documents keep the house rule of English (CONTRIBUTING.md, section English)."""

import re
from itertools import chain
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
#: The documents under the rule. CONTRIBUTING.md quotes the rule and is left out.
PATTERNS = ("*.md", "*/README.md", "flows/*/README.md", "infra/**/*.md")
DOCUMENTS = sorted(
    set(chain.from_iterable(map(PROJECT.glob, PATTERNS))) - {PROJECT / "CONTRIBUTING.md"}
)

#: What is banned, why, and what to write instead.
BANNED: dict[str, tuple[str, str]] = {
    r"nobody|no one": ("a riddle as subject", "the passive, or `no <role>`"),
    r"(?:some|any|every)body": ("vague about who is meant", "a person, everyone, the role"),
    r"who(?:so)?ever": (
        "a relative clause as subject",
        "the role: the caller, the owner, a person",
    ),
    r"whom": ("an inverted relative clause", "subject, verb, object"),
    r"told|tells": (
        "people tell; software does not",
        "notified, returned",
    ),
    r"says|said": ("people say; software does not", "states, returns, records, shows"),
    r"hears?|heard": ("software does not hear", "receives, is notified of"),
    r"speaks? of|speaks": ("software does not speak", "describes, covers, supports"),
    r"asks|asked": ("people ask; software does not", "requests, requires, reads, queries"),
    r"judg(?:e[sd]?|ing|e?ments?)": (
        "people judge; software does not",
        "assesses, checks, compares",
    ),
    r"verdicts?": ("a court gives one", "decision, result"),
    r"words?": ("an image for a decision", "override, decision, term, message"),
    r"yardsticks?": ("an image", "baseline, reference"),
    r"leftovers?|left\s+behind": ("an image", "orphaned runs, remaining rows"),
    r"wanted": ("software wants nothing", "required, configured, options"),
    r"forgets|forgotten|remembers?|remembered": (
        "software has no memory",
        "deletes, keeps, stores",
    ),
    r"knows": ("software knows nothing", "maps, holds, recognises, supports"),
    r"(?<!crisis\s)(?<!consent\s)notices|noticed": ("people notice; software does not", "detects"),
    r"anew": ("an archaism", "again"),
    r"of (?:before|theirs|ours)": ("a noun is missing", "earlier, its, our"),
    r"for want of|heeds?": ("an archaism", "because ... is missing; considers"),
    r"becom(?:es|e) of|became of": ("an idiom", "outcome, result"),
    r"by (?:itself|themselves)": ("vague about the actor", "automatically, alone"),
    r"answers? (?:with )?[2-5]\d\d|(?:does|do) not answer|(?:is|are) answered [2-5]\d\d": (
        "software returns a status",
        "returns, responds",
    ),
    r"whatever": ("a relative clause as subject", "regardless of, any"),
    r"learnt": ("models are trained", "trained on, fitted on"),
    r"br(?:eaks?|oke|oken) off": ("an idiom", "interrupted"),
    r"mends?|mended": ("an image", "repairs, fixes"),
    r"(?:the )?way (?:back|in)|under way": ("an image", "restore, downgrade, access, running"),
    r"stands? (?:at|beside|by)": ("an image", "is, has"),
    r"strangers?": ("an image", "a new person, unknown"),
}
RULES = {
    re.compile(rf"\b(?:{pattern})\b".replace(" ", r"\s+"), re.IGNORECASE): advice
    for pattern, advice in BANNED.items()
}
#: Code blocks, code spans, link targets and addresses are not prose.
NOT_PROSE = re.compile(
    r"^ *```.*?^ *```|`[^`]*`|\]\([^)]*\)|<https?:[^>]*>", re.MULTILINE | re.DOTALL
)


def keep_lines(match: re.Match[str]) -> str:
    return "\n" * match.group().count("\n")


def find_breaches(text: str) -> list[str]:
    """Return one line for each banned phrase: line number, phrase, reason, alternative."""
    prose = NOT_PROSE.sub(keep_lines, text)
    return [
        f"line {prose.count(chr(10), 0, match.start()) + 1}: {match.group()!r}: {reason};"
        f" write: {instead}"
        for rule, (reason, instead) in RULES.items()
        for match in rule.finditer(prose)
    ]


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
