"""Benchmarks run to their end: each prints its figures over a few people, and no error.

Not here: `bench_serving` and `bench_ehr`, which need a stack and a release of their own, and
those that take half an hour. Whether the figures are good is for people to judge.
"""

import os
import subprocess
import sys

import pytest

BENCHMARKS = [
    ("bench_scoring",),
    ("bench_drift",),
    ("bench_console",),
    ("bench_learning_curve", "600"),
    ("bench_training", "400"),
    ("bench_scale", "300"),
]
MINUTES = 10


@pytest.mark.nightly
@pytest.mark.parametrize("command", BENCHMARKS, ids=" ".join)
def test_a_benchmark_prints_figures_and_no_error(command: tuple[str, ...]) -> None:
    name, *arguments = command
    ran = subprocess.run(
        [sys.executable, "-m", f"tests.load.{name}", *arguments],
        env={key: value for key, value in os.environ.items() if not key.startswith("PYTEST")},
        capture_output=True,
        text=True,
        timeout=MINUTES * 60,
    )

    assert ran.returncode == 0, ran.stderr[-3000:]
    assert any(character.isdigit() for character in ran.stdout)
    assert " nan" not in ran.stdout
