"""Gradual rollout: who sees a candidate, which one may be seen, and what stops it."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from pydantic import ValidationError

from mlruns_config.arms import CANDIDATE_ALIAS, MODE_TAG, SHARE_TAG, Rollout
from mlruns_config.guardrails import Guardrail, Observed, find_breaches, load_guardrails
from mlruns_config.manifest import RELEASE_MODEL
from mlruns_config.registry.rollout import (
    find_rollout,
    set_traffic_share,
    start_shadow,
    stop_rollout,
)
from mlruns_config.registry.transitions import (
    PromotionFailedError,
    PromotionRefusedError,
    Registry,
    find_production,
    read_ledger,
    roll_back,
)
from tests.fixtures.small_registry import (  # noqa: F401 # fixtures
    go,
    list_ledger,
    register,
    registry,
    tracking_uri,
)

WHO_AND_WHY = ("ada", "a test")
SHARES = st.floats(0, 1)
ERRORS = Guardrail(measure="error_rate", maximum=0.005, after=200, reason="a test")


def stage_candidate(registry: Registry, auroc: float = 0.8) -> int:  # noqa: F811
    version = register(registry, auroc)
    go(registry, version, "Staging")
    start_shadow(registry, version, *WHO_AND_WHY)
    return version


def get_traces(registry: Registry, version: int) -> tuple[set[str], set[str]]:  # noqa: F811
    known = registry.client.get_model_version(RELEASE_MODEL, str(version))
    return set(known.aliases), set(known.tags) & {MODE_TAG, SHARE_TAG}


@given(st.text(), SHARES, st.integers(1, 99))
def test_an_individual_always_gets_the_same_release(pseudonym, share, version):
    arms = {Rollout(version, "traffic", share).choose_arm(pseudonym) for _ in range(3)}
    assert len(arms) == 1


@given(st.text(), SHARES, SHARES, st.integers(1, 99))
def test_raising_the_share_takes_the_candidate_from_nobody(pseudonym, one, other, version):
    low, high = sorted((one, other))
    if Rollout(version, "traffic", low).choose_arm(pseudonym) == "candidate":
        assert Rollout(version, "traffic", high).choose_arm(pseudonym) == "candidate"


@given(st.text())
def test_a_share_of_none_reaches_nobody_and_of_all_everybody(pseudonym):
    assert Rollout(3, "shadow", 0.0).choose_arm(pseudonym) == "production"
    assert Rollout(3, "traffic", 1.0).choose_arm(pseudonym) == "candidate"


def test_the_share_of_individuals_is_the_one_asked_for_and_others_in_each_rollout():
    pseudonyms = [f"individual-{number}" for number in range(4000)]
    arms = [[Rollout(v, "traffic", 0.2).choose_arm(one) for one in pseudonyms] for v in (3, 4)]

    assert [Counter(chosen)["candidate"] / 4000 for chosen in arms] == pytest.approx(
        [0.2, 0.2], abs=0.03
    )
    assert arms[0] != arms[1]


def test_an_unknown_version_cannot_shadow(registry):  # noqa: F811
    with pytest.raises(PromotionRefusedError, match="no version 9"):
        start_shadow(registry, 9, *WHO_AND_WHY)
    assert list_ledger(registry) == [(9, "unknown", "shadow", "refused")]


@pytest.mark.parametrize("stage", ["None", "Production", "Archived"])
def test_only_a_version_in_staging_may_shadow(registry, stage):  # noqa: F811
    version = register(registry)
    if stage != "None":
        go(registry, version, stage)

    with pytest.raises(PromotionRefusedError, match=f"is in {stage}; a candidate is in Staging"):
        start_shadow(registry, version, *WHO_AND_WHY)
    assert find_rollout(registry) is None
    assert list_ledger(registry)[-1] == (version, stage, "shadow", "refused")


def test_a_second_candidate_waits_for_the_first(registry):  # noqa: F811
    first, second = stage_candidate(registry), register(registry)
    go(registry, second, "Staging")

    with pytest.raises(PromotionRefusedError, match=f"version {first} is being rolled out"):
        start_shadow(registry, second, *WHO_AND_WHY)
    assert find_rollout(registry) == Rollout(first, "shadow", 0.0)
    assert list_ledger(registry)[-1] == (second, "Staging", "shadow", "refused")


def test_without_a_candidate_there_is_nothing_to_share_or_stop(registry):  # noqa: F811
    with pytest.raises(PromotionRefusedError, match="no candidate"):
        set_traffic_share(registry, 0.1, *WHO_AND_WHY)
    with pytest.raises(PromotionRefusedError, match="no candidate"):
        stop_rollout(registry, *WHO_AND_WHY)
    assert [row[2:] for row in list_ledger(registry)] == [
        ("traffic 0.1", "refused"),
        ("stopped", "refused"),
    ]


@pytest.mark.parametrize("share", [0, -0.1, 1.01, math.nan, math.inf])
def test_a_share_that_is_none_is_refused(registry, share):  # noqa: F811
    version = stage_candidate(registry)
    with pytest.raises(PromotionRefusedError, match="above 0 and up to 1"):
        set_traffic_share(registry, share, *WHO_AND_WHY)
    assert find_rollout(registry) == Rollout(version, "shadow", 0.0)
    assert list_ledger(registry)[-1][-1] == "refused"


def test_a_candidate_that_fails_a_gate_answers_nobody(registry):  # noqa: F811
    version = stage_candidate(registry, auroc=0.5)
    with pytest.raises(PromotionRefusedError, match=r"auroc is 0\.5"):
        set_traffic_share(registry, 0.01, *WHO_AND_WHY)
    assert find_rollout(registry) == Rollout(version, "shadow", 0.0)


def test_a_share_that_somebody_tampered_with_is_an_error(registry):  # noqa: F811
    version = stage_candidate(registry)
    set_traffic_share(registry, 0.1, *WHO_AND_WHY)
    for text in ("all", "7", "nan"):
        registry.client.set_model_version_tag(RELEASE_MODEL, str(version), SHARE_TAG, text)
        with pytest.raises(ValueError, match="no share from 0 to 1"):
            find_rollout(registry)


class BrokenClient(MlflowClient):
    """MLflow that goes away before the alias."""

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        raise MlflowException("gone")


def test_a_step_that_mlflow_breaks_off_starts_nothing_and_is_recorded(
    registry,  # noqa: F811
    tracking_uri,  # noqa: F811
):
    version = register(registry)
    go(registry, version, "Staging")
    broken = Registry(BrokenClient(tracking_uri), registry.engine, registry.gates)

    with pytest.raises(PromotionFailedError, match="to shadow"):
        start_shadow(broken, version, *WHO_AND_WHY)
    assert find_rollout(registry) is None
    assert list_ledger(registry)[-1] == (version, "Staging", "shadow", "failed")


def test_a_rollout_goes_from_shadow_over_shares_to_its_stop(registry):  # noqa: F811
    version = stage_candidate(registry)
    assert set_traffic_share(registry, 0.1, *WHO_AND_WHY) == find_rollout(registry)
    set_traffic_share(registry, 0.5, *WHO_AND_WHY)
    assert find_rollout(registry) == Rollout(version, "traffic", 0.5)

    assert stop_rollout(registry, *WHO_AND_WHY) == version
    assert find_rollout(registry) is None
    assert get_traces(registry, version) == (set(), set())
    assert list_ledger(registry)[1:] == [
        (version, "Staging", "shadow", "promoted"),
        (version, "shadow", "traffic 0.1", "promoted"),
        (version, "traffic 0.1", "traffic 0.5", "promoted"),
        (version, "traffic 0.5", "stopped", "promoted"),
    ]


def test_a_candidate_goes_back_to_shadow(registry):  # noqa: F811
    version = stage_candidate(registry)
    set_traffic_share(registry, 0.1, *WHO_AND_WHY)
    start_shadow(registry, version, *WHO_AND_WHY)
    assert find_rollout(registry) == Rollout(version, "shadow", 0.0)


@pytest.mark.parametrize("stage", ["Production", "Archived"])
def test_a_candidate_that_leaves_staging_is_none_any_more(registry, stage):  # noqa: F811
    version = stage_candidate(registry)
    set_traffic_share(registry, 0.1, *WHO_AND_WHY)
    go(registry, version, stage)

    aliases, tags = get_traces(registry, version)
    assert CANDIDATE_ALIAS not in aliases
    assert tags == set()
    assert find_rollout(registry) is None


def test_promoting_another_release_leaves_the_candidate_alone(registry):  # noqa: F811
    candidate, other = stage_candidate(registry), register(registry)
    go(registry, other)
    assert find_rollout(registry) == Rollout(candidate, "shadow", 0.0)


def test_the_steps_of_a_rollout_do_not_confuse_a_rollback(registry):  # noqa: F811
    first = register(registry)
    go(registry, first)
    second = stage_candidate(registry)
    set_traffic_share(registry, 0.1, *WHO_AND_WHY)
    go(registry, second)
    third = stage_candidate(registry)
    stop_rollout(registry, *WHO_AND_WHY)
    go(registry, third)

    assert roll_back(registry, "bob", "bad") == second
    assert find_production(registry) == second
    assert read_ledger(registry)[-1].reason == f"bad (rollback from {third})"


def test_a_measure_that_is_missing_or_no_number_is_a_breach():
    assert find_breaches((ERRORS,), Observed(200, {})) == ["error_rate is not measured"]
    assert find_breaches((ERRORS,), Observed(200, {"error_rate": math.nan})) != []


def test_too_few_screenings_prove_nothing():
    assert find_breaches((ERRORS,), Observed(199, {"error_rate": 1.0})) == []


def test_a_measure_of_decisions_waits_until_clinicians_have_decided_cases_of_both_releases():
    overrides = ERRORS.model_copy(update={"after_decisions": 30})
    assert find_breaches((overrides,), Observed(200, {}, decisions=29)) == []
    assert find_breaches((overrides,), Observed(200, {"error_rate": 1.0}, decisions=29)) == []
    assert find_breaches((overrides,), Observed(200, {}, decisions=30)) != []


def test_a_measure_at_its_limit_holds_and_above_it_stops():
    assert find_breaches((ERRORS,), Observed(200, {"error_rate": 0.005})) == []
    (breach,) = find_breaches((ERRORS,), Observed(200, {"error_rate": 0.02}))
    assert breach == "error_rate is 0.02, above 0.005"


def test_a_file_without_guardrails_or_reasons_is_refused(tmp_path):
    path = tmp_path / "guardrails.toml"
    path.write_text("")
    with pytest.raises(ValueError, match="names no guardrail"):
        load_guardrails(path)
    path.write_text('[[guardrail]]\nmeasure = "a"\nmaximum = 1\nafter = 1\n')
    with pytest.raises(ValidationError, match="reason"):
        load_guardrails(path)


def test_the_reviewed_guardrails_watch_errors_scores_clinicians_and_workload():
    assert {guardrail.measure for guardrail in load_guardrails()} >= {
        *("error_rate", "score_shift", "override_rate_gain", "review_share_gain"),
    }
