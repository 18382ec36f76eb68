"""The table of `make coverage`."""

import pytest

from tests.coverage_by_package import list_lines, measure_share, sum_by_package


def count(lines, lines_missed, branches, branches_missed):
    return {
        "num_statements": lines,
        "missing_lines": lines_missed,
        "num_branches": branches,
        "missing_branches": branches_missed,
    }


FILES = {
    "serving/consent/state.py": count(40, 0, 4, 1),
    "serving/consent/changes.py": count(50, 5, 6, 4),
    "flows/drift.py": count(10, 10, 0, 0),
    "flows/__init__.py": count(0, 0, 0, 0),
}


def test_files_are_summed_up_by_their_folder():
    packages = sum_by_package(FILES)

    assert list(packages) == ["flows", "serving/consent"]
    assert packages["serving/consent"] == {
        "lines": 90,
        "lines_missed": 5,
        "branches": 10,
        "branches_missed": 5,
    }


def test_the_share_counts_lines_and_branches():
    packages = sum_by_package(FILES)

    assert measure_share(packages["serving/consent"]) == pytest.approx(0.9)
    assert measure_share(packages["flows"]) == 0
    assert measure_share(sum_by_package({"a/__init__.py": count(0, 0, 0, 0)})["a"]) == 1


def test_the_table_ends_with_the_sum_of_all_packages():
    *_, consent, total = list_lines(sum_by_package(FILES))

    assert consent.split() == ["serving/consent", "90", "5", "10", "5", "90.0%"]
    assert total.split() == ["all", "100", "15", "10", "5", "81.8%"]
