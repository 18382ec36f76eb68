"""Which codes of the events of a drop belong to no group, by system: what features do not see."""

import re
from collections import Counter
from collections.abc import Mapping

import polars as pl

from feature_repo.clinical_codes import (
    CONDITION_GROUPS,
    ICD9,
    ICD10,
    MEDICATION_GROUPS,
    READ_SYSTEMS,
    ConditionGroup,
    MedicationGroup,
    normalise_code,
    normalise_system,
)

GROUPS: dict[str, Mapping[str, ConditionGroup | MedicationGroup]] = {
    "diagnosis": CONDITION_GROUPS,
    "medication": MEDICATION_GROUPS,
}

#: A system's name is shown only where it cannot be anything but one.
PLAIN_SYSTEM = re.compile(r"(?:https?://|urn:oid:)[\w./:-]{3,100}|[\w.-]{1,20}")
PLAIN_CODE = re.compile(r"[A-Z]?\d[\dA-Z]{0,11}", re.IGNORECASE)


def count_unmapped(events: pl.DataFrame) -> Counter[str]:
    """Return how many diagnoses and medications map to nothing, by system and code.

    Codes of systems that are not read are counted under their system alone.
    """
    unmapped: Counter[str] = Counter()
    pairs = events.filter(pl.col("kind").is_in(list(GROUPS))).group_by("kind", "system", "code")
    for kind, system, code, number in pairs.len().iter_rows():
        plain = normalise_system(system)
        if plain not in READ_SYSTEMS[kind]:
            shown = system if PLAIN_SYSTEM.fullmatch(system) else "another system"
            unmapped[f"{kind} of {shown}: not read"] += number
        elif not any(
            group.holds(plain, normalise_code(plain, code)) for group in GROUPS[kind].values()
        ):
            unmapped[f"{kind} of {plain}: {_show(plain, code)}"] += number
    return unmapped


def _is_mapped(kind: str, system: str, code: str) -> bool:
    plain = normalise_code(system, code)
    return any(group.holds(system, plain) for group in GROUPS[kind].values())


def _show(system: str, code: str) -> str:
    plain = normalise_code(system, code)
    # ICD's categories are enough to see what is missing; a code may also be a typing error.
    plain = plain[:3] if system in (ICD10, ICD9) else plain
    return plain if PLAIN_CODE.fullmatch(plain) else "other codes"
