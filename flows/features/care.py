"""Features of encounters, diagnoses and medications before a moment (view care_history)."""

from collections.abc import Mapping

import polars as pl

from feature_repo.clinical_codes import (
    ACUTE_PSYCHIATRIC_SETTINGS,
    ACUTE_SETTINGS,
    CONDITION_GROUPS,
    MEDICATION_GROUPS,
    PSYCHIATRIC_SETTINGS,
    ConditionGroup,
    MedicationGroup,
    normalise_code,
    normalise_system,
)
from feature_repo.stored_views import JOIN_KEY
from flows.features.moments import AS_OF, AVAILABLE_AT, stamp_rows

MOMENT = [JOIN_KEY, AS_OF]
#: How long a prescription without an end, or with one that lies ahead, counts as current.
ASSUMED_SUPPLY_DAYS = 90


def compute_care_history(moments: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Return one row per moment of an individual whose record holds any earlier event."""
    earlier = (
        moments.join(add_groups(events), on=JOIN_KEY)
        .filter(pl.col("started_at") < pl.col(AS_OF))
        .with_columns((pl.col(AS_OF) - pl.col("started_at")).dt.total_days().alias("days_ago"))
    )
    features = earlier.group_by(MOMENT).agg(
        pl.col(AVAILABLE_AT).max(),
        *_summarise_encounters(),
        *_summarise_medications(),
        *_summarise_diagnoses(),
    )
    return stamp_rows(features)


def _summarise_encounters() -> list[pl.Expr]:
    encounter = pl.col("kind") == "encounter"
    psychiatric = pl.col("setting").is_in(PSYCHIATRIC_SETTINGS)
    acute = pl.col("setting").is_in(ACUTE_SETTINGS)
    acute_psychiatric = pl.col("setting").is_in(ACUTE_PSYCHIATRIC_SETTINGS)
    quarter, year = pl.col("days_ago") < 90, pl.col("days_ago") < 365
    return [
        (encounter & quarter).sum().alias("encounters_90"),
        (encounter & year).sum().alias("encounters_365"),
        (psychiatric & quarter).sum().alias("psychiatric_encounters_90"),
        (psychiatric & year).sum().alias("psychiatric_encounters_365"),
        (acute & year).sum().alias("acute_encounters_365"),
        (acute_psychiatric & year).sum().alias("acute_psychiatric_365"),
        pl.col("days_ago").filter(psychiatric).min().alias("days_since_psychiatric"),
        pl.col("days_ago").filter(acute_psychiatric).min().alias("days_since_acute_psychiatric"),
    ]


def _summarise_medications() -> list[pl.Expr]:
    assumed_end = pl.col("started_at") + pl.duration(days=ASSUMED_SUPPLY_DAYS)
    # An end that lies ahead is not known yet: such a prescription is like one without an end.
    ended = (pl.col("ended_at") < pl.col(AS_OF)).fill_null(False)
    running = ~ended & (assumed_end >= pl.col(AS_OF))
    active = [
        (_is_medication(group) & running).any().cast(pl.Float32).alias(f"{group}_active")
        for group in MEDICATION_GROUPS
    ]
    started = _is_medication("antidepressant") & (pl.col("days_ago") < 90)
    return [*active, started.sum().alias("antidepressant_starts_90")]


def _is_medication(group: str) -> pl.Expr:
    return (pl.col("kind") == "medication") & pl.col(f"is_{group}")


def _summarise_diagnoses() -> list[pl.Expr]:
    return [
        ((pl.col("kind") == "diagnosis") & pl.col(f"is_{name}"))
        .any()
        .cast(pl.Float32)
        .alias(f"{name}_diagnosed")
        for name in CONDITION_GROUPS
    ]


def add_groups(events: pl.DataFrame) -> pl.DataFrame:
    """Add a Boolean `is_<group>` for every group of diagnoses and medications."""
    pairs = events.select("system", "code").unique()
    groups = {f"is_{name}": group for name, group in (CONDITION_GROUPS | MEDICATION_GROUPS).items()}
    memberships = [_list_memberships(system, code, groups) for system, code in pairs.iter_rows()]
    columns = pl.DataFrame(memberships, schema=dict.fromkeys(groups, pl.Boolean), orient="row")
    groups_of = pl.concat([pairs, columns], how="horizontal")
    return events.join(groups_of, on=["system", "code"], nulls_equal=True)


def _list_memberships(
    system: str | None, code: str | None, groups: Mapping[str, ConditionGroup | MedicationGroup]
) -> tuple[bool, ...]:
    plain = normalise_system(system or "")
    return tuple(group.holds(plain, normalise_code(plain, code or "")) for group in groups.values())
