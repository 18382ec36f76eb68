"""Which diagnoses and medications count as what, in every code system that is read.

ICD-10 and its modifications (-CM, -GM) by blocks of chapter V (WHO ICD-10); ICD-9-CM by the codes
that CMS' General Equivalence Mappings of 2018 lead to those blocks; SNOMED CT by the concepts that
occur most in primary care; RxNorm by ingredient and by product (rxnorm_products.py); ATC by group
(WHO Collaborating Centre for Drug Statistics Methodology). Codes of other systems map to nothing:
ingestion lists them by system with counts.
"""

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache

from feature_repo.rxnorm_products import PRODUCTS

ICD10, ICD9 = "icd-10", "icd-9"
SNOMED_SYSTEM = "http://snomed.info/sct"
RXNORM_SYSTEM = "http://www.nlm.nih.gov/research/umls/rxnorm"
ATC_SYSTEM = "http://www.whocc.no/atc"
LOINC = "http://loinc.org"

#: What a system's address, OID or plain name holds, and which system that is.
SYSTEM_PATTERNS = (
    (
        re.compile(
            r"icd-?10(?!-?pcs)|2\.16\.840\.1\.113883\.6\.(?:3|90)$|1\.2\.276\.0\.76\.5\.4\d\d$"
        ),
        ICD10,
    ),
    (re.compile(r"icd-?9(?!.*(?:pcs|proc))|2\.16\.840\.1\.113883\.6\.103$"), ICD9),
    (re.compile(r"snomed|2\.16\.840\.1\.113883\.6\.96$"), SNOMED_SYSTEM),
    (re.compile(r"rxnorm|2\.16\.840\.1\.113883\.6\.88$"), RXNORM_SYSTEM),
    (re.compile(r"(?:^|/)atc$|whocc|2\.16\.840\.1\.113883\.6\.73$"), ATC_SYSTEM),
    (re.compile(r"loinc(?:\.org)?$|2\.16\.840\.1\.113883\.6\.1$"), LOINC),
)


@lru_cache(maxsize=1024)
def normalise_system(system: str) -> str:
    """Return one name for a code system, however it is written: address, OID or plain name.

    ICD-10 and its national modifications are one system here: their chapter V is the same.
    """
    plain = system.strip().lower().rstrip("/")
    return next((name for pattern, name in SYSTEM_PATTERNS if pattern.search(plain)), plain)


def normalise_code(system: str, code: str) -> str:
    """Return a code without what writes it differently: ICD without dots and marks."""
    if system in (ICD10, ICD9):
        return re.sub(r"[^A-Z0-9]", "", code.upper())
    return code.strip()


@dataclass(frozen=True)
class ConditionGroup:
    """A group of diagnoses: prefixes of ICD codes without their dots, SNOMED CT concepts."""

    icd10_prefixes: tuple[str, ...]
    icd9_prefixes: tuple[str, ...]
    snomed: tuple[str, ...]

    def holds(self, system: str, code: str) -> bool:
        """Return True for a code of the group; system and code as normalised."""
        if system == ICD10:
            return code.startswith(self.icd10_prefixes)
        if system == ICD9:
            return code.startswith(self.icd9_prefixes)
        return system == SNOMED_SYSTEM and code in self.snomed


CONDITION_GROUPS = {
    "depression": ConditionGroup(
        ("F32", "F33", "F341"),
        ("2962", "2963", "29682", "2980", "3004", "311"),
        (
            *("35489007", "370143000", "36923009", "66344007", "78667006", "191616006"),
            *("83458005", "310495003", "310496002", "310497006", "87512008", "832007"),
            *("450714000", "79298009", "15639000", "76441001", "58703003", "191610000"),
            *("191611001", "191613003", "268621008"),
        ),
    ),
    "anxiety": ConditionGroup(
        ("F40", "F41", "F431"),
        ("3000", "3002", "30981"),
        (
            *("48694002", "197480006", "21897009", "371631005", "47505003", "80583007"),
            *("231504006", "25501002", "35607004", "386808001"),
        ),
    ),
    "severe_mental_illness": ConditionGroup(
        ("F20", "F25", "F28", "F29", "F30", "F31"),
        (
            *("295", "2960", "2961", "2964", "2965", "2966", "2967"),
            *("29680", "29681", "29689", "2981", "2988", "2989"),
        ),
        ("58214004", "13746004", "69322001", "68890003", "31446002"),
    ),
    "substance_use": ConditionGroup(
        ("F10", "F11", "F12", "F13", "F14", "F15", "F16", "F18", "F19"),
        (
            *("291", "292", "303", "304", "3050"),
            *("3052", "3053", "3054", "3055", "3056", "3057", "3058", "3059"),
        ),
        ("7200002", "66214007", "191816009", "6525002", "5602001", "55680006", "361055000"),
    ),
}


@dataclass(frozen=True)
class MedicationGroup:
    """A group of medications: ATC prefixes, RxNorm ingredients by name with their RXCUI."""

    atc_prefixes: tuple[str, ...]
    ingredients: dict[str, str]

    @cached_property
    def rxnorm(self) -> frozenset[str]:
        """Return the RXCUIs of the ingredients and of their products."""
        products = [code for name in self.ingredients for code in PRODUCTS.get(name, "").split()]
        return frozenset((*self.ingredients.values(), *products))

    def holds(self, system: str, code: str) -> bool:
        """Return True for a code of the group; system and code as normalised."""
        if system == ATC_SYSTEM:
            return code.upper().startswith(self.atc_prefixes)
        return system == RXNORM_SYSTEM and code in self.rxnorm


MEDICATION_GROUPS = {
    "antidepressant": MedicationGroup(
        ("N06A",),
        {
            "sertraline": "36437",
            "escitalopram": "321988",
            "citalopram": "2556",
            "fluoxetine": "4493",
            "paroxetine": "32937",
            "fluvoxamine": "42355",
            "venlafaxine": "39786",
            "desvenlafaxine": "734064",
            "duloxetine": "72625",
            "levomilnacipran": "1433212",
            "bupropion": "42347",
            "mirtazapine": "15996",
            "trazodone": "10737",
            "nefazodone": "31565",
            "vilazodone": "1086769",
            "vortioxetine": "1455099",
            "amitriptyline": "704",
            "nortriptyline": "7531",
            "imipramine": "5691",
            "clomipramine": "2597",
            "desipramine": "3247",
            "doxepin": "3638",
            "protriptyline": "8886",
            "trimipramine": "10834",
            "phenelzine": "8123",
            "tranylcypromine": "10734",
        },
    ),
    "antipsychotic": MedicationGroup(
        # N05A holds lithium; lamotrigine is an antiepileptic by ATC.
        ("N05A", "N03AX09"),
        {
            "quetiapine": "51272",
            "olanzapine": "61381",
            "risperidone": "35636",
            "paliperidone": "679314",
            "aripiprazole": "89013",
            "brexpiprazole": "1658314",
            "cariprazine": "1667655",
            "asenapine": "784649",
            "iloperidone": "73178",
            "lurasidone": "1040028",
            "haloperidol": "5093",
            "clozapine": "2626",
            "ziprasidone": "115698",
            "chlorpromazine": "2403",
            "fluphenazine": "4496",
            "perphenazine": "8076",
            "lithium": "6448",
            "lamotrigine": "28439",
        },
    ),
    "anxiolytic": MedicationGroup(
        # Clonazepam is an antiepileptic by ATC.
        ("N05B", "N03AE01"),
        {
            "lorazepam": "6470",
            "alprazolam": "596",
            "clonazepam": "2598",
            "diazepam": "3322",
            "chlordiazepoxide": "2356",
            "oxazepam": "7781",
            "buspirone": "1827",
            "hydroxyzine": "5553",
        },
    ),
}

#: Systems whose codes the groups above are made of, by the kind of event that has them.
READ_SYSTEMS = {
    "diagnosis": (ICD10, ICD9, SNOMED_SYSTEM),
    "medication": (RXNORM_SYSTEM, ATC_SYSTEM),
}

ACUTE_SETTINGS = ("emergency", "inpatient", "psychiatric_emergency", "psychiatric_inpatient")
ACUTE_PSYCHIATRIC_SETTINGS = ("psychiatric_emergency", "psychiatric_inpatient")
PSYCHIATRIC_SETTINGS = ("psychiatric_outpatient", *ACUTE_PSYCHIATRIC_SETTINGS)
