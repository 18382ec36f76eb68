"""Gate overrides: one version, one measured metric, somebody's decision, until a day."""

import math
from datetime import UTC, datetime, timedelta

import pytest

from mlruns_config.gates import Gate
from mlruns_config.overrides import LONGEST, Override, apply_overrides
from mlruns_config.registry import transitions
from mlruns_config.registry.transitions import (
    PromotionRefusedError,
    Registry,
    find_production,
    override_gate,
    read_ledger,
)
from tests.fixtures.small_registry import (  # noqa: F401 # fixtures
    AUROC,
    go,
    list_ledger,
    register,
    registry,
    tracking_uri,
)

TODAY = datetime.now(UTC).date()
NEXT_WEEK = TODAY + timedelta(days=7)
ECE = Gate(metric="ece", maximum=0.05, reason="a test", decided=TODAY)


def override(registry: Registry, version: int, until=NEXT_WEEK, metric="auroc"):  # noqa: F811
    return override_gate(registry, version, metric, until, "grace", "under review")


def refuse_override(registry: Registry, version: int, match: str, **changes) -> None:  # noqa: F811
    """Check that an override is refused, kept in the ledger, and of no effect."""
    with pytest.raises(PromotionRefusedError, match=match):
        override(registry, version, **changes)
    assert list_ledger(registry)[-1][2:] == ("override", "refused")
    with pytest.raises(PromotionRefusedError):
        go(registry, version)
    assert find_production(registry) is None


def test_a_version_nobody_registered_cannot_be_overridden(registry):  # noqa: F811
    refuse_override(registry, 9, "no version 9")


@pytest.mark.parametrize("auroc", [None, math.nan])
def test_a_missing_metric_cannot_be_overridden(registry, auroc):  # noqa: F811
    refuse_override(registry, register(registry, auroc), "auroc is missing")


@pytest.mark.parametrize("value", [{}, {"auroc": math.nan}, {"auroc": math.inf}])
def test_a_metric_that_went_missing_after_its_override_still_fails(value):
    kept = {"auroc": Override("auroc", NEXT_WEEK, "grace")}
    assert apply_overrides([AUROC], value, kept) == (["auroc is missing"], [])


def test_what_is_no_gate_cannot_be_overridden(registry):  # noqa: F811
    refuse_override(registry, register(registry, 0.5), "auc is not a gate", metric="auc")


def test_an_override_longer_than_thirty_days_is_refused(registry):  # noqa: F811
    late = TODAY + LONGEST + timedelta(days=1)
    refuse_override(registry, register(registry, 0.5), "30 days at most", until=late)


def test_an_override_until_yesterday_is_refused(registry):  # noqa: F811
    gone = TODAY - timedelta(days=1)
    refuse_override(registry, register(registry, 0.5), "expired already", until=gone)


@pytest.mark.parametrize(("actor", "reason"), [("", "why"), ("grace", " ")])
def test_an_override_needs_who_and_why(registry, actor, reason):  # noqa: F811
    version = register(registry, 0.5)
    with pytest.raises(PromotionRefusedError, match="who decides it and why"):
        override_gate(registry, version, "auroc", NEXT_WEEK, actor, reason)


def test_an_override_of_one_version_says_nothing_about_another(registry):  # noqa: F811
    one, other = register(registry, 0.5), register(registry, 0.5)
    override(registry, one)
    with pytest.raises(PromotionRefusedError, match=r"auroc is 0\.5"):
        go(registry, other)


def test_an_override_of_one_gate_says_nothing_about_another(registry):  # noqa: F811
    version = register(registry, 0.5)
    both = Registry(registry.client, registry.engine, (AUROC, ECE))
    override(both, version)
    with pytest.raises(PromotionRefusedError, match="ece is missing") as refusal:
        go(both, version)
    assert "auroc" not in str(refusal.value)


def test_an_unknown_member_is_not_overridden(registry):  # noqa: F811
    version = register(registry, 0.5, member_version=7)
    override(registry, version)
    with pytest.raises(PromotionRefusedError, match="has no version 7"):
        go(registry, version)


@pytest.mark.parametrize("days", [0, LONGEST.days])
def test_an_override_holds_on_its_last_day_and_not_after_it(
    registry,  # noqa: F811
    monkeypatch,
    days,
):
    version = register(registry, 0.5)
    last = TODAY + timedelta(days=days)
    override(registry, version, until=last)
    monkeypatch.setattr(transitions, "_get_today", lambda: last + timedelta(days=1))
    with pytest.raises(PromotionRefusedError, match=r"auroc is 0\.5"):
        go(registry, version)

    monkeypatch.setattr(transitions, "_get_today", lambda: last)
    go(registry, version)
    assert find_production(registry) == version


def test_an_override_and_the_promotion_that_needed_it_are_in_the_ledger(registry):  # noqa: F811
    version = register(registry, 0.5)
    override(registry, version)
    go(registry, version)

    given, promoted = read_ledger(registry)
    assert (given.result, given.actor, given.reason) == ("overridden", "grace", "under review")
    assert given.gates == {"metric": "auroc", "until": NEXT_WEEK.isoformat()}
    assert promoted.reason == f"a test (gate auroc overridden by grace until {NEXT_WEEK})"
    assert promoted.gates == {"auroc": 0.5}


def test_an_override_that_was_not_needed_is_not_named(registry):  # noqa: F811
    version = register(registry, 0.8)
    override(registry, version)
    go(registry, version)
    assert read_ledger(registry)[-1].reason == "a test"
