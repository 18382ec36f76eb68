"""Which codes make an encounter a psychiatric one.

Chapter V (F01-F99) of ICD-10 and its modifications is the rule, as are the mental disorders
(290-319) of ICD-9-CM and intentional self-harm in both; SNOMED CT, which has no chapters, is
covered by the specialties, encounter types and disorders listed here, and the diagnoses that are
features (feature_repo/clinical_codes.py).
"""

import re

from feature_repo.clinical_codes import (
    CONDITION_GROUPS,
    ICD9,
    ICD10,
    SNOMED_SYSTEM,
    normalise_code,
    normalise_system,
)

#: Codes as normalised, without dots. Self-harm: R45.851 and T14.91 of ICD-10-CM, X60-X84 of WHO.
ICD10_MENTAL = re.compile(r"F\d{2}[0-9A-Z]{0,5}|R4585\d?|T1491[A-Z]?|X(?:[67]\d|8[0-4])[0-9A-Z]*")
ICD9_MENTAL = re.compile(r"(?:29\d|30\d|31\d)\d{0,2}|V6284|E95\d\d?")

SNOMED_SERVICES = {
    "394587001": "psychiatry",
    "394588006": "child and adolescent psychiatry",
    "394913002": "psychotherapy",
    "408467006": "adult mental illness",
    "4525004": "seen by psychiatry service",
    "305351004": "admission to psychiatric ward",
    "79094001": "initial psychiatric interview with mental status evaluation",
    "56876005": "drug rehabilitation and detoxification",
    "225337009": "suicide risk assessment",
}
#: Disorders besides those that are features (CONDITION_GROUPS).
OTHER_DISORDERS = {
    "74732009": "mental disorder",
    "191736004": "obsessive-compulsive disorder",
    "72366004": "eating disorder",
    "192127007": "child attention deficit disorder",
    "6471006": "suicidal thoughts",
    "82313006": "suicide attempt",
}
#: Overdoses (among substance use) need not be meant; they are a reason to look either way.
GROUPED_DISORDERS = frozenset(code for group in CONDITION_GROUPS.values() for code in group.snomed)
SNOMED_CODES = GROUPED_DISORDERS | SNOMED_SERVICES.keys() | OTHER_DISORDERS.keys()


def is_mental_health(system: str, code: str) -> bool:
    """Return True for a code of mental health; False for systems other than these three."""
    plain = normalise_system(system)
    if plain in (ICD10, ICD9):
        pattern = ICD10_MENTAL if plain == ICD10 else ICD9_MENTAL
        return pattern.fullmatch(normalise_code(plain, code)) is not None
    return plain == SNOMED_SYSTEM and code in SNOMED_CODES
