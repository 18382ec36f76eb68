"""What encounters, diagnoses and medications before the index date say."""

from datetime import timedelta

from feature_repo.feast_library import FeatureView, Field, Float32
from feature_repo.individual import individual, make_feature_source

#: Name -> (plain words, unit).
CARE_FEATURES = {
    "encounters_90": ("encounters in 90 days", "count"),
    "encounters_365": ("encounters in a year", "count"),
    "psychiatric_encounters_90": ("psychiatric encounters in 90 days", "count"),
    "psychiatric_encounters_365": ("psychiatric encounters in a year", "count"),
    "acute_encounters_365": ("emergency or inpatient encounters in a year", "count"),
    "acute_psychiatric_365": ("psychiatric emergencies or admissions in a year", "count"),
    "days_since_psychiatric": ("days since the last psychiatric encounter", "days"),
    "days_since_acute_psychiatric": (
        "days since the last psychiatric emergency or admission",
        "days",
    ),
    "antidepressant_active": ("antidepressant at present", "yes/no"),
    "antidepressant_starts_90": ("antidepressant prescriptions in 90 days", "count"),
    "antipsychotic_active": ("antipsychotic or mood stabiliser at present", "yes/no"),
    "anxiolytic_active": ("anxiolytic at present", "yes/no"),
    "depression_diagnosed": ("depression on record", "yes/no"),
    "anxiety_diagnosed": ("anxiety disorder on record", "yes/no"),
    "severe_mental_illness_diagnosed": ("psychosis or bipolar disorder on record", "yes/no"),
    "substance_use_diagnosed": ("substance use disorder on record", "yes/no"),
}

care_history = FeatureView(
    name="care_history",
    entities=[individual],
    ttl=timedelta(days=90),
    tags={"data_type": "emr"},
    schema=[
        Field(name=name, dtype=Float32, tags={"unit": unit}, description=label)
        for name, (label, unit) in CARE_FEATURES.items()
    ],
    source=make_feature_source("care_history"),
)
