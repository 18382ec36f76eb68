"""Whether more people would make a member join: its gain out of fold by the size of a cohort.

A cohort is simulated and made features of once; members are then fitted on shares of its people,
four folds each, and selected as a training selects them.
Command line: ``python -m tests.load.bench_learning_curve [PEOPLE]``.
"""

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np

from tests.load.bench_training import HEADER, measure_steps, run_postgres

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flows.models.member import FittingData

PEOPLE, SEED = 15_000, 1
SHARES = (0.25, 0.5, 1.0)


def main(people: int = PEOPLE) -> None:
    print(f"\nGain of each member by people, of {people:,} simulated\n{HEADER}", flush=True)
    with run_postgres() as (server, folder):
        variables = measure_steps(server, folder / "state", people, "all", SEED, steps=("prepare",))
        command = [sys.executable, "-m", "tests.load.bench_learning_curve", "curve"]
        subprocess.run(command, env=os.environ | variables, check=True)


def print_curve() -> None:
    """Fit and select on each share of the people of a prepared state."""
    from prefect.testing.utilities import prefect_test_harness

    from feature_repo.stored_views import JOIN_KEY
    from flows.datasets.loading import load_training_set
    from flows.evaluation.learning import make_fitting_data
    from serving.settings import get_settings

    with prefect_test_harness(server_startup_timeout=180):
        training_set = load_training_set(get_settings().lake_url)
    data = make_fitting_data(training_set, SEED)
    names = training_set.frame[JOIN_KEY].to_numpy()[training_set.split.fitting].astype(np.str_)
    people = np.random.default_rng(SEED).permutation(np.unique(names))
    for share in SHARES:
        chosen = np.isin(names, people[: round(share * len(people))])
        print_gains(data.select(chosen), names[chosen])


def print_gains(data: "FittingData", names: "NDArray[np.str_]") -> None:
    import polars as pl

    from flows.evaluation.metrics import auroc
    from flows.evaluation.selection import select_members
    from flows.models.families import FAMILIES, UNFAMILIARITY, find_fit_each, load_families
    from flows.models.out_of_fold import cross_fit
    from flows.models.side_by_side import open_other_process

    families = load_families(name for name in FAMILIES if name != UNFAMILIARITY)
    people = pl.Series(names)
    with open_other_process() as other:
        out_of_fold = {
            name: cross_fit(data, people, fit, find_fit_each(name, other)).predict(data.rows)
            for name, fit in families.items()
        }
    areas = {name: auroc(data.labels, told) for name, told in out_of_fold.items()}
    print(f"\n{len(data.rows):,} rows", ", ".join(f"{one} {areas[one]:.4f}" for one in areas))
    for decision in select_members(out_of_fold, data.labels, names, SEED):
        print(f"  {decision.describe()}", flush=True)


if __name__ == "__main__":
    asked = sys.argv[1:]
    if asked == ["curve"]:
        print_curve()
    else:
        main(*map(int, asked))
