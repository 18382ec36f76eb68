"""The index of decisions lists each of them by its title."""

from pathlib import Path

FOLDER = Path(__file__).parents[2] / "infra" / "adr"


def test_the_index_lists_every_decision_by_its_title():
    listed = [
        line for line in (FOLDER / "README.md").read_text().splitlines() if line.startswith("- [")
    ]
    written = [
        f"- [{path.read_text().splitlines()[0].removeprefix('# ')}]({path.name})"
        for path in sorted(FOLDER.glob("0*.md"))
    ]

    assert listed == written
