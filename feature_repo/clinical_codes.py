"""Which diagnoses and medications count as what.

ICD-10(-CM) by chapter F blocks (WHO ICD-10, chapter V); SNOMED CT by the concepts that occur
most in primary care; RxNorm by ingredient. A product code (SCD/SBD) is not an ingredient:
map it before ingestion or the medication counts as other.
"""

from dataclasses import dataclass

ICD10_SYSTEMS = (
    "http://hl7.org/fhir/sid/icd-10",
    "http://hl7.org/fhir/sid/icd-10-cm",
    "icd-10",
    "icd-10-cm",
)
SNOMED_SYSTEM = "http://snomed.info/sct"
RXNORM_SYSTEM = "http://www.nlm.nih.gov/research/umls/rxnorm"


@dataclass(frozen=True)
class ConditionGroup:
    """A group of diagnoses: ICD-10 prefixes and SNOMED CT concepts."""

    icd10_prefixes: tuple[str, ...]
    snomed: tuple[str, ...]


CONDITION_GROUPS = {
    "depression": ConditionGroup(
        ("F32", "F33", "F34.1"),
        ("35489007", "370143000", "36923009", "66344007", "78667006", "191616006", "83458005"),
    ),
    "anxiety": ConditionGroup(
        ("F40", "F41", "F43.1"),
        ("48694002", "197480006", "21897009", "371631005", "47505003", "80583007"),
    ),
    "severe_mental_illness": ConditionGroup(
        ("F20", "F25", "F28", "F29", "F30", "F31"),
        ("58214004", "13746004", "69322001", "68890003", "31446002"),
    ),
    "substance_use": ConditionGroup(
        ("F10", "F11", "F12", "F13", "F14", "F15", "F16", "F18", "F19"),
        ("7200002", "66214007", "191816009", "6525002", "5602001", "55680006", "361055000"),
    ),
}

#: RxNorm ingredients.
MEDICATION_GROUPS = {
    "antidepressant": (
        "36437",  # sertraline
        "321988",  # escitalopram
        "2556",  # citalopram
        "4493",  # fluoxetine
        "32937",  # paroxetine
        "39786",  # venlafaxine
        "72625",  # duloxetine
        "42347",  # bupropion
        "15996",  # mirtazapine
        "10737",  # trazodone
        "704",  # amitriptyline
        "7531",  # nortriptyline
    ),
    "antipsychotic": (
        "51272",  # quetiapine
        "61381",  # olanzapine
        "35636",  # risperidone
        "89013",  # aripiprazole
        "5093",  # haloperidol
        "2626",  # clozapine
        "115698",  # ziprasidone
        "6448",  # lithium
        "28439",  # lamotrigine
    ),
    "anxiolytic": (
        "6470",  # lorazepam
        "596",  # alprazolam
        "2598",  # clonazepam
        "3322",  # diazepam
        "1827",  # buspirone
        "5553",  # hydroxyzine
    ),
}

ACUTE_SETTINGS = ("emergency", "inpatient", "psychiatric_emergency", "psychiatric_inpatient")
ACUTE_PSYCHIATRIC_SETTINGS = ("psychiatric_emergency", "psychiatric_inpatient")
PSYCHIATRIC_SETTINGS = ("psychiatric_outpatient", *ACUTE_PSYCHIATRIC_SETTINGS)
