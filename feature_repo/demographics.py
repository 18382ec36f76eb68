"""What does not change between screenings: year of birth and sex."""

from datetime import timedelta

from feature_repo.feast_library import FeatureView, Field, Float32
from feature_repo.individual import individual, make_feature_source

# Ethnicity is kept for the fairness report only and is no input of any model.
demographics = FeatureView(
    name="demographics",
    entities=[individual],
    ttl=timedelta(0),  # no expiry
    schema=[
        Field(name="birth_year", dtype=Float32, tags={"unit": "year"}, description="year of birth"),
        Field(name="sex_female", dtype=Float32, tags={"unit": "yes/no"}, description="sex: female"),
        Field(name="sex_male", dtype=Float32, tags={"unit": "yes/no"}, description="sex: male"),
    ],
    source=make_feature_source("demographics"),
)
