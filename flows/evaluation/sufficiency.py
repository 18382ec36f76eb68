"""Whether a recalibration of the Production release suffices where drift calls for another one.

It does where the release ranks its newest labelled outcomes no worse than at its evaluation, its
calibration there surely needs correction, and the recalibrated release passes every gate on them.
Otherwise its members have aged, and a new release is trained. ADR 75.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flows.evaluation.comparison import Comparison
from flows.evaluation.metrics import Interval
from flows.evaluation.recalibration import Recalibration, choose_kind
from mlruns_config.gates import Gate, find_failures


@dataclass(frozen=True)
class OnNewest:
    """A release on its newest labelled outcomes, and what recalibrating it would change.

    `metrics` and `intervals` are the release's own; `offer` is None where none is called for or
    none helps. `comparison` is of the recalibrated release with the one in Production there,
    `gate_metrics` are what the recalibrated release shows.
    """

    auroc_then: float | None
    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval]
    offer: Recalibration | None = None
    comparison: Comparison | None = None
    gate_metrics: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Choice:
    """Whether the challenger is Production recalibrated or a newly trained release, and why."""

    recalibrates: bool
    why: str

    def describe(self) -> str:
        return f"{'recalibrated' if self.recalibrates else 'newly trained'}: {self.why}"


def choose_challenger(newest: OnNewest, gates: Sequence[Gate]) -> Choice:
    """Return which of the two the challenger is; `gates` are those of a challenger."""
    obstacle = (
        find_lost_ranking(newest) or find_nothing_to_correct(newest) or find_failing(newest, gates)
    )
    if obstacle is not None:
        return Choice(False, obstacle)
    assert newest.offer is not None
    return Choice(
        True,
        f"Production ranks its newest outcomes as at its evaluation ({describe_ranking(newest)}), "
        f"and {newest.offer.describe()}",
    )


def find_lost_ranking(newest: OnNewest) -> str | None:
    """Return why the ranking does not hold, or None: its interval must reach that of then."""
    if newest.auroc_then is None:
        return "the AUROC of Production's evaluation is not known"
    if newest.intervals["auroc"][1] < newest.auroc_then:
        return f"Production ranks its newest outcomes worse ({describe_ranking(newest)})"
    return None


def describe_ranking(newest: OnNewest) -> str:
    """Return the AUROC now with its interval, and that of the evaluation, which must be known."""
    (low, high), now = newest.intervals["auroc"], newest.metrics["auroc"]
    return f"AUROC {now:.3f}, {low:.3f} to {high:.3f}; {newest.auroc_then:.3f} then"


def find_nothing_to_correct(newest: OnNewest) -> str | None:
    """Return why a recalibration would change nothing for the better, or None."""
    ratio = newest.intervals["observed_over_expected"]
    slope = newest.intervals["calibration_slope"]
    if choose_kind(ratio, slope) is None:
        return (
            "the calibration of Production holds on its newest outcomes (observed over expected "
            f"{ratio[0]:.2f} to {ratio[1]:.2f}, slope {slope[0]:.2f} to {slope[1]:.2f}), so a "
            "recalibration would change nothing"
        )
    if newest.offer is None:
        return "a recalibration of Production would not lower its Brier score"
    return None


def find_failing(newest: OnNewest, gates: Sequence[Gate]) -> str | None:
    """Return the gates that the recalibrated release fails on the newest outcomes, or None."""
    failures = find_failures(tuple(gates), newest.gate_metrics or {})
    if not failures:
        return None
    return f"Production recalibrated would fail on its newest outcomes: {'; '.join(failures)}"
