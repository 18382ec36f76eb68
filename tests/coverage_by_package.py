"""Print by package how many lines and branches the last `make coverage` covered."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

import typer
from coverage import Coverage

HEADER = f"{'package':<28}{'lines':>8}{'missed':>8}{'branches':>10}{'missed':>8}{'covered':>9}"

Counts = Mapping[str, int]


def sum_by_package(files: Mapping[str, Counts]) -> dict[str, Counter[str]]:
    """Return the counts of files by path, summed up by their folder, in the order of names."""
    packages: dict[str, Counter[str]] = {}
    for path, counts in files.items():
        packages.setdefault(PurePath(path).parent.as_posix(), Counter()).update(
            lines=counts["num_statements"],
            lines_missed=counts["missing_lines"],
            branches=counts["num_branches"],
            branches_missed=counts["missing_branches"],
        )
    return dict(sorted(packages.items()))


def measure_share(counts: Counter[str]) -> float:
    """Return the share of lines and branches that ran; 1 where there is nothing to run."""
    all_of_them = counts["lines"] + counts["branches"]
    missed = counts["lines_missed"] + counts["branches_missed"]
    return 1 - missed / all_of_them if all_of_them else 1.0


def list_lines(packages: Mapping[str, Counter[str]]) -> Iterable[str]:
    """Yield the lines of the table, the sum of all packages last."""
    yield HEADER
    total: Counter[str] = sum(packages.values(), Counter())
    for name, counts in [*packages.items(), ("all", total)]:
        numbers = f"{counts['lines']:>8}{counts['lines_missed']:>8}"
        numbers += f"{counts['branches']:>10}{counts['branches_missed']:>8}"
        yield f"{name:<28}{numbers}{measure_share(counts):>9.1%}"


def read_counts() -> dict[str, Counts]:
    """Return the counts of each measured file; raises coverage.exceptions.NoDataError."""
    measured = Coverage()
    measured.load()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        measured.json_report(outfile=str(report))
        files: dict[str, Any] = json.loads(report.read_text())["files"]
    return {path: parts["summary"] for path, parts in files.items()}


if __name__ == "__main__":
    for line in list_lines(sum_by_package(read_counts())):
        typer.echo(line)
