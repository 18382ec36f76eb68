"""Which codes make an encounter a psychiatric one.

Small on purpose: chapter V (F01-F99) of ICD-10 is the rule, and SNOMED CT, which has no
chapters, is covered by the specialties, encounter types and disorders listed here.
"""

import re

SNOMED_SYSTEM = "http://snomed.info/sct"

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
SNOMED_DISORDERS = {
    "74732009": "mental disorder",
    "35489007": "depressive disorder",
    "36923009": "major depression, single episode",
    "66344007": "major depression, recurrent",
    "370143000": "major depressive disorder",
    "13746004": "bipolar disorder",
    "58214004": "schizophrenia",
    "69322001": "psychotic disorder",
    "48694002": "anxiety",
    "197480006": "anxiety disorder",
    "21897009": "generalised anxiety disorder",
    "371631005": "panic disorder",
    "191736004": "obsessive-compulsive disorder",
    "47505003": "posttraumatic stress disorder",
    "72366004": "eating disorder",
    "192127007": "child attention deficit disorder",
    "7200002": "alcoholism",
    "66214007": "substance abuse",
    "5602001": "opioid abuse",
    "6471006": "suicidal thoughts",
    "82313006": "suicide attempt",
    # An overdose need not be meant; it is a reason to look either way.
    "55680006": "drug overdose",
}


def is_mental_health(system: str, code: str) -> bool:
    """Tell whether a code is of mental health; False for systems other than the two above."""
    if ICD10_SYSTEM.search(system):
        return ICD10_MENTAL.fullmatch(code) is not None
    return system == SNOMED_SYSTEM and (code in SNOMED_SERVICES or code in SNOMED_DISORDERS)
