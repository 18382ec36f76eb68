"""Performance of each member alone, its gain for the release, and its cost."""

from collections.abc import Mapping, Sequence
from statistics import median
from time import perf_counter

import numpy as np
import polars as pl

from flows.datasets.rows import ModelRows
from flows.evaluation.held_out import HeldOut
from flows.evaluation.metrics import auprc, auroc
from flows.evaluation.selection import Decision
from flows.models.member import FittedMember, open_graph, score_graph
from mlruns_config.manifest import ReleaseManifest

SCORING_ROUNDS = 50


def compare_members(
    held_out: HeldOut,
    members: Mapping[str, FittedMember],
    manifest: ReleaseManifest,
    decisions: Sequence[Decision],
) -> pl.DataFrame:
    """Return one row per member.

    `auroc` and `auprc` are its own on held-out rows; `gain` what the stack gained by it out of
    fold, with its interval (nothing for the baseline); `milliseconds` its graph for one row.
    """
    taken = {decision.member: decision for decision in decisions}
    single_row = held_out.rows.select(np.array([0]))
    rows = []
    for name, member in members.items():
        decision = taken.get(name)
        rows.append(
            {
                "member": name,
                "weight": manifest.stacker.coefficients.get(name, 0.0),
                "auroc": auroc(held_out.labels, held_out.by_member[name]),
                "auprc": auprc(held_out.labels, held_out.by_member[name]),
                "gain": decision.gain if decision else None,
                "gain_low": decision.gain_low if decision else None,
                "gain_high": decision.gain_high if decision else None,
                "milliseconds": time_scoring(member, single_row),
            }
        )
    return pl.DataFrame(rows, schema_overrides=dict.fromkeys(GAINS, pl.Float64))


GAINS = ("gain", "gain_low", "gain_high")


def time_scoring(member: FittedMember, row: ModelRows) -> float:
    """Return the median milliseconds the member's graph takes for one individual."""
    session = open_graph(member.export_graph())
    times = []
    for _ in range(SCORING_ROUNDS):
        begun = perf_counter()
        score_graph(session, row)
        times.append(1000 * (perf_counter() - begun))
    return median(times)


def name_member_metrics(costs: pl.DataFrame) -> dict[str, float]:
    """Return the table as metrics, and the milliseconds of all members together."""
    measured = {
        f"{row['member']}_{name}": float(row[name])
        for row in costs.iter_rows(named=True)
        for name in ("auroc", "auprc", "milliseconds", *GAINS)
        if row[name] is not None
    }
    return measured | {"scoring_milliseconds": float(costs["milliseconds"].sum())}
