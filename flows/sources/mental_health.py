"""Which codes make an encounter a psychiatric one.

Small on purpose: chapter V (F01-F99) of ICD-10 is the rule, and SNOMED CT, which has no
chapters, is covered by the specialties, encounter types and disorders listed here, and the
diagnoses that are features (feature_repo/clinical_codes.py).
"""

import re

from feature_repo.clinical_codes import CONDITION_GROUPS, SNOMED_SYSTEM

ICD10_MENTAL = re.compile(r"F\d{2}(?:\.?[0-9A-Z]{1,4})?", re.IGNORECASE)
ICD10_SYSTEM = re.compile(r"icd-?10", re.IGNORECASE)

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
    """Tell whether a code is of mental health; False for systems other than the two above."""
    if ICD10_SYSTEM.search(system):
        return ICD10_MENTAL.fullmatch(code) is not None
    return system == SNOMED_SYSTEM and code in SNOMED_CODES
