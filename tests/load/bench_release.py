"""How good a release is beside its baselines, over five simulated cohorts, and what it costs.

For each seed a cohort is simulated, made features of and trained on with all five families. The
release as it was evaluated, the spline regression alone and a regression on today's PHQ-9 alone
are then compared on the held-out people, for both outcomes. Time and peak memory are those of
the whole training in a process of its own.
Command line: ``python -m tests.load.bench_release [PEOPLE] [--seeds 1 2 3 4 5] [--tabular]``.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from infra.local.postgres import PostgresServer
from tests.load.bench_training import HEADER, measure_steps, run_postgres

if TYPE_CHECKING:
    from flows.datasets.rows import Probabilities
    from flows.datasets.training_set import TrainingSet
    from flows.models.registered import RegisteredMember
    from mlruns_config.manifest import ReleaseManifest

PEOPLE, SEEDS = 3000, (1, 2, 3, 4, 5)
RELEASE, SPLINES, PHQ9_ALONE = "release", "spline regression", "PHQ-9 alone"
FIGURES = ("auroc", "auprc", "observed_over_expected", "ece")
COMPARED_FILE = "compared.json"
#: (outcome, model, figure name -> value)
Row = tuple[str, str, dict[str, float]]


def main(people: int = PEOPLE, seeds: tuple[int, ...] = SEEDS, members: str = "all") -> None:
    """Train and compare for each seed, then print the means and ranges over all seeds."""
    print(f"\nReleases of {people:,} simulated people each, {members} members\n")
    compared: list[Row] = []
    with run_postgres() as (server, folder):
        for seed in seeds:
            compared += measure_seed(server, folder / str(seed), people, members, seed)
    print(f"\nall {len(seeds)} seeds, mean (least to most)\n{describe_header()}")
    for line in summarise(compared):
        print(line)


def measure_seed(
    server: PostgresServer, folder: Path, people: int, members: str, seed: int
) -> list[Row]:
    print(f"\nseed {seed}\n{HEADER}", flush=True)
    variables = measure_steps(server, folder, people, members, seed)
    command = [sys.executable, "-m", "tests.load.bench_release", "--compare", str(folder)]
    subprocess.run(command, env=os.environ | variables, check=True)
    return [(row[0], row[1], row[2]) for row in json.loads((folder / COMPARED_FILE).read_text())]


def compare(folder: Path) -> None:
    """Compare the release of a trained state with its baselines; print, and write to `folder`."""
    from prefect.testing.utilities import prefect_test_harness

    from flows.datasets.loading import load_training_set
    from flows.models.registered import open_members
    from flows.runtime.releases import hold_registry
    from mlruns_config.manifest import RELEASE_MODEL
    from mlruns_config.registry.transitions import read_evaluated
    from serving.settings import get_settings

    with prefect_test_harness(server_startup_timeout=180), hold_registry() as registry:
        (registered,) = registry.client.search_model_versions(f"name='{RELEASE_MODEL}'")
        manifest = read_evaluated(registry, int(registered.version))
        estimating = [pin.name for pin in manifest.members if pin.name != "isolation_forest"]
        members = open_members(registry.client, manifest, estimating)
        rows = compare_heads(load_training_set(get_settings().lake_url), manifest, members)
        tags = registry.client.get_run(str(registered.run_id)).data.tags
    print(describe_header(), flush=True)
    for outcome, model, figures in rows:
        print(describe_row(outcome, model, [f"{figures[name]:.4f}" for name in FIGURES]))
    for name, decision in sorted(tags.items()):
        if name.startswith("member.evaluated "):
            print(f"  {decision}", flush=True)
    (folder / COMPARED_FILE).write_text(json.dumps(rows))


def compare_heads(
    training_set: "TrainingSet",
    manifest: "ReleaseManifest",
    members: "dict[str, RegisteredMember]",
) -> list[Row]:
    """Return the figures of every model on the held-out rows of each outcome."""
    from flows.datasets.labels import WORSENED
    from flows.evaluation.releasing import WORSENING_PREFIX, find_severe
    from flows.models.families import BASELINE

    asked: list[tuple[Any, TrainingSet, str]] = [(manifest.priority, training_set, BASELINE)]
    if manifest.worsening is not None:
        beside = training_set.turn_to(WORSENED, ~find_severe(training_set))
        asked.append((manifest.worsening, beside, f"{WORSENING_PREFIX}{BASELINE}"))
    return [
        row for head, rows, baseline in asked for row in _compare(head, rows, members, baseline)
    ]


def _compare(
    head: Any,
    training_set: "TrainingSet",
    members: "dict[str, RegisteredMember]",
    baseline: str,
) -> list[Row]:
    from flows.models.interval import predict_head

    chosen = training_set.split.held_out
    rows, labels = training_set.rows.select(chosen), training_set.labels[chosen]
    predicted = {
        RELEASE: predict_head(members, head, rows),
        SPLINES: members[baseline].predict(rows),
        PHQ9_ALONE: predict_by_phq9(training_set),
    }
    return [(head.outcome, name, measure(labels, values)) for name, values in predicted.items()]


def predict_by_phq9(training_set: "TrainingSet") -> "Probabilities":
    """Return a logistic regression on the PHQ-9 total alone, fitted on the fitting rows."""
    from sklearn.linear_model import LogisticRegression

    totals = training_set.read_phq9_totals()
    known = np.nan_to_num(totals, nan=float(np.nanmean(totals)))[:, None]
    split = training_set.split
    model = LogisticRegression().fit(known[split.fitting], training_set.labels[split.fitting])
    return np.asarray(model.predict_proba(known[split.held_out])[:, 1])


def measure(labels: Any, probabilities: "Probabilities") -> dict[str, float]:
    from flows.evaluation.metrics import auprc, auroc, measure_ece

    return {
        "auroc": auroc(labels, probabilities),
        "auprc": auprc(labels, probabilities),
        "observed_over_expected": float(labels.sum() / probabilities.sum()),
        "ece": measure_ece(labels, probabilities),
    }


def describe_header() -> str:
    return describe_row("outcome", "model", ["AUROC", "AUPRC", "O/E", "ECE"])


def describe_row(outcome: str, model: str, values: list[str]) -> str:
    return f"{outcome:<18} {model:<18}" + "".join(f" {value:>23}" for value in values)


def summarise(compared: list[Row]) -> list[str]:
    """Return one line for each outcome and model, with the mean and range of every figure."""
    lines = []
    for outcome, model in dict.fromkeys((row[0], row[1]) for row in compared):
        found = [row[2] for row in compared if row[:2] == (outcome, model)]
        values = [[figures[name] for figures in found] for name in FIGURES]
        told = [f"{np.mean(one):.3f} ({min(one):.3f} to {max(one):.3f})" for one in values]
        lines.append(describe_row(outcome, model, told))
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare releases with their baselines.")
    parser.add_argument("people", nargs="?", type=int, default=PEOPLE)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--tabular", action="store_true", help="without the networks")
    parser.add_argument("--compare", type=Path, help="folder of a trained state (internal)")
    asked = parser.parse_args()
    if asked.compare:
        compare(asked.compare)
    else:
        main(asked.people, tuple(asked.seeds), "tabular" if asked.tabular else "all")
