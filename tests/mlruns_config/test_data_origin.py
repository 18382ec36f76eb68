"""A release trained on simulated people never answers about real ones."""

from datetime import date, timedelta

import pytest
from sqlalchemy import text

from mlruns_config.data_origin import holds_real_people, note_origin
from mlruns_config.registry.rollout import set_traffic_share, start_shadow
from mlruns_config.registry.transitions import (
    PromotionRefusedError,
    find_production,
    override_gate,
    read_ledger,
    roll_back,
)
from tests.fixtures.small_registry import go, register, registry, tracking_uri

__all__ = ["registry", "tracking_uri"]

SIMULATED = {"simulated": True}
REFUSAL = "trained on simulated people, and this state holds real ones"


def test_where_real_people_are_held_a_release_of_simulated_ones_is_refused(registry):
    note_origin(registry.engine, is_simulated=False)
    version = register(registry, lineage=SIMULATED)
    go(registry, version, "Staging")
    with pytest.raises(PromotionRefusedError, match=REFUSAL):
        go(registry, version)

    assert find_production(registry) is None
    assert [entry.result for entry in read_ledger(registry)] == ["promoted", "refused"]
    assert REFUSAL in read_ledger(registry)[-1].reason


def test_an_override_of_a_gate_does_not_let_it_through(registry):
    note_origin(registry.engine, is_simulated=False)
    version = register(registry, auroc=0.5, lineage=SIMULATED)
    until = date.today() + timedelta(days=2)
    override_gate(registry, version, "auroc", until, "ada", "a test")
    with pytest.raises(PromotionRefusedError, match=REFUSAL):
        go(registry, version)


def test_it_gets_no_share_of_traffic_either(registry):
    note_origin(registry.engine, is_simulated=False)
    version = register(registry, lineage=SIMULATED)
    go(registry, version, "Staging")
    start_shadow(registry, version, "ada", "a test")
    with pytest.raises(PromotionRefusedError, match=REFUSAL):
        set_traffic_share(registry, 0.1, "ada", "a test")


def test_a_rollback_does_not_return_to_it_once_real_people_are_held(registry):
    note_origin(registry.engine, is_simulated=True)
    go(registry, register(registry, lineage=SIMULATED))
    go(registry, second := register(registry))
    note_origin(registry.engine, is_simulated=False)
    with pytest.raises(PromotionRefusedError, match=REFUSAL):
        roll_back(registry, "ada", "a test")
    assert find_production(registry) == second


def test_among_simulated_people_and_of_real_ones_a_release_is_promoted(registry):
    note_origin(registry.engine, is_simulated=True)
    note_origin(registry.engine, is_simulated=True)
    go(registry, simulated := register(registry, lineage=SIMULATED))
    assert find_production(registry) == simulated
    note_origin(registry.engine, is_simulated=False)
    go(registry, real := register(registry))
    assert find_production(registry) == real


def test_what_is_unknown_counts_as_real_until_it_is_noted(registry):
    assert not holds_real_people(registry.engine)
    with registry.engine.begin() as connection:
        connection.execute(text("INSERT INTO data_origins VALUES ('unknown', now())"))
    assert holds_real_people(registry.engine)
    note_origin(registry.engine, is_simulated=True)
    assert not holds_real_people(registry.engine)
