"""The ASVS ledger lists every requirement once and names tests that exist."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache

import pytest

from tests.infra.cluster_objects import PROJECT

LEDGER = PROJECT / "infra" / "runbooks" / "asvs.md"
#: Requirements of OWASP ASVS 5.0.0 by level: chapter.section.numbers.
LEVELS = {
    1: "1.2.1-5 1.3.1-2 1.5.1 2.1.1 2.2.1-2 2.3.1 3.2.1-2 3.3.1 3.4.1-2 3.5.1-3 4.1.1 4.4.1 "
    "5.2.1-2 5.3.1-2 6.1.1 6.2.1-8 6.3.1-2 6.4.1-2 7.2.1-4 7.4.1-2 8.1.1 8.2.1-2 8.3.1 9.1.1-3 "
    "9.2.1 10.4.1-5 11.3.1-2 11.4.1 12.1.1 12.2.1-2 13.4.1 14.2.1 14.3.1 15.1.1 15.2.1 15.3.1",
    2: "1.1.1-2 1.2.6-9 1.3.3-11 1.4.1-3 1.5.2 2.1.2-3 2.2.3 2.3.2-4 2.4.1 3.3.2-4 3.4.3-6 "
    "3.5.4-5 3.7.1-2 4.1.2-3 4.2.1 4.3.1-2 4.4.2-4 5.1.1 5.2.3 5.4.1-3 6.1.2-3 6.2.9-12 6.3.3-4 "
    "6.4.3-4 6.5.1-5 6.6.1-3 6.8.1-4 7.1.1-3 7.3.1-2 7.4.3-5 7.5.1-2 7.6.1-2 8.1.2 8.2.3 8.4.1 "
    "9.2.2-4 10.1.1-2 10.2.1-2 10.3.1-4 10.4.6-11 10.5.1-5 10.6.1-2 10.7.1-3 11.1.1-2 11.2.1-3 "
    "11.3.3 11.4.2-4 11.5.1 11.6.1 12.1.2-3 12.3.1-4 13.1.1 13.2.1-5 13.3.1-2 13.4.2-5 14.1.1-2 "
    "14.2.2-4 14.3.2-3 15.1.2-3 15.2.2-3 15.3.2-7 16.1.1 16.2.1-5 16.3.1-4 16.4.1-3 16.5.1-3 "
    "17.1.1 17.2.1-4 17.3.1-2",
}
ROW = re.compile(r"^\| (\d+\.\d+\.\d+) \| ([12]) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
TEST_ID = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
ONLY_TESTS = re.compile(rf"{TEST_ID.pattern}(?:, {TEST_ID.pattern})*")
#: Statuses that need a sentence; the other one is a list of test ids.
REASONED = ("not applicable", "site", "open")
#: A section of a page beside the ledger.
SECTION = re.compile(r"document: \[[^]]+\]\(([\w-]+\.md)#([\w-]+)\)")


def expand(numbers: str) -> Iterator[str]:
    """Yield each requirement of a list such as `1.2.1-3`."""
    for span in numbers.split():
        section, _, ends = span.rpartition(".")
        first, _, last = ends.partition("-")
        yield from (f"{section}.{one}" for one in range(int(first), int(last or first) + 1))


def classify(status: str) -> str:
    """Return the kind of a status; raises ValueError for one that is none."""
    if ONLY_TESTS.fullmatch(status):
        return "tests"
    if SECTION.fullmatch(status):
        return "document"
    kind, _, reason = status.partition(": ")
    if kind not in REASONED or len(reason.strip()) < 5:
        raise ValueError(f"no status: {status!r}")
    return kind


def has_status(status: str) -> bool:
    try:
        classify(status)
    except ValueError:
        return False
    return True


def read_rows(text: str) -> list[tuple[str, str, str]]:
    """Return (requirement, level, status) of each row."""
    return [(number, level, status) for number, level, _, status in ROW.findall(text)]


@cache
def list_tests(path: str) -> frozenset[str]:
    tree = ast.parse((PROJECT / path).read_text(encoding="utf-8"))
    functions = (one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef))
    return frozenset(one.name for one in functions if one.name.startswith("test_"))


def find_unknown_tests(text: str) -> list[str]:
    return [
        f"{path}::{name}"
        for path, name in TEST_ID.findall(text)
        if not (PROJECT / path).is_file() or name not in list_tests(path)
    ]


ROWS = read_rows(LEDGER.read_text(encoding="utf-8"))


@pytest.mark.parametrize("status", ["", "open", "open: ", "yes: it holds", "`tests/x.py`", "tests"])
def test_a_status_that_is_none_is_refused(status: str) -> None:
    with pytest.raises(ValueError, match="no status"):
        classify(status)


@pytest.mark.parametrize(
    "name",
    ["tests/infra/test_asvs.py::test_nothing", "tests/infra/no.py::test_a", "tests/no.py::t"],
)
def test_a_test_that_does_not_exist_is_found(name: str) -> None:
    assert find_unknown_tests(f"| 1.1.1 | 1 | x | `{name}` |") == [name]


def test_every_requirement_of_both_levels_is_listed_once_with_its_level() -> None:
    required = [(one, str(level)) for level, all_of in LEVELS.items() for one in expand(all_of)]
    listed = [(number, level) for number, level, _ in ROWS]

    assert len(required) == 70 + 183
    assert Counter(listed) == Counter(required)


def test_every_line_of_a_table_is_read_as_a_row() -> None:
    lines = LEDGER.read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if re.match(r"\| \d", line)]) == len(ROWS)


def test_every_requirement_stands_under_its_chapter() -> None:
    for chapter in LEDGER.read_text(encoding="utf-8").split("\n## V")[1:]:
        number = chapter.partition(" ")[0]
        assert {row[0].partition(".")[0] for row in read_rows(chapter)} == {number}


def test_every_requirement_has_a_status() -> None:
    unclear = [number for number, _, status in ROWS if not has_status(status)]
    assert unclear == []


def test_every_named_test_exists() -> None:
    assert find_unknown_tests(LEDGER.read_text(encoding="utf-8")) == []


def test_every_named_section_exists() -> None:
    named = SECTION.findall(LEDGER.read_text(encoding="utf-8"))

    assert named
    assert [(page, name) for page, name in named if name not in list_sections(page)] == []


def list_sections(page: str) -> set[str]:
    """Return the anchors that a forge makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", (LEDGER.parent / page).read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_the_sums_are_those_of_the_tables() -> None:
    counts = Counter(classify(status) for _, _, status in ROWS)
    sums = (
        f"Of {len(ROWS)} requirements, {counts['tests']} are proven by tests, "
        f"{counts['document']} by a document, {counts['site']} belong to the site, "
        f"{counts['not applicable']} do not apply, "
        f"{counts['open']} are open."
    )
    assert sums in LEDGER.read_text(encoding="utf-8")
