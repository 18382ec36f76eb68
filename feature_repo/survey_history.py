"""What questionnaires answered before the index date say."""

from datetime import timedelta

from feature_repo.answer_features import STORED_PHQ9_ITEMS
from feature_repo.feast_library import FeatureView, Field, Float32
from feature_repo.individual import individual, make_feature_source
from feature_repo.instruments import OTHER_INSTRUMENTS, Instrument

POINTS = {"unit": "points"}
DAYS = {"unit": "days"}
COUNT = {"unit": "count"}


def _describe_burden(instrument: Instrument) -> list[Field]:
    """Return the fields of an instrument besides PHQ-9 and GAD-7: more is worse in all of them."""
    points = f"{instrument.name} total"
    if not instrument.higher_is_worse:
        points = f"{instrument.name} points below the best total of {instrument.max_total}"
    rate = {"unit": "points per 30 days"}
    return [
        Field(
            name=f"{instrument.key}_last", dtype=Float32, tags=POINTS, description=f"last {points}"
        ),
        Field(
            name=f"{instrument.key}_mean_365",
            dtype=Float32,
            tags=POINTS,
            description=f"mean of a year: {points}",
        ),
        Field(
            name=f"{instrument.key}_slope_365",
            dtype=Float32,
            tags=rate,
            description=f"trend in a year: {points}",
        ),
    ]


survey_history = FeatureView(
    name="survey_history",
    entities=[individual],
    # A questionnaire of more than a year ago is weak evidence about the next 90 days.
    ttl=timedelta(days=400),
    tags={"data_type": "survey"},
    schema=[
        *(
            Field(name=name, dtype=Float32, tags=POINTS, description=f"last PHQ-9 item {n}")
            for n, name in enumerate(STORED_PHQ9_ITEMS, 1)
        ),
        Field(name="stored_phq9_total", dtype=Float32, tags=POINTS, description="last PHQ-9 total"),
        Field(
            name="stored_phq9_at",
            dtype=Float32,
            tags={"unit": "days since 1970-01-01"},
            description="day of the last PHQ-9",
        ),
        Field(
            name="previous_phq9_total",
            dtype=Float32,
            tags=POINTS,
            description="PHQ-9 total before the last one",
        ),
        Field(name="phq9_mean_365", dtype=Float32, tags=POINTS, description="mean PHQ-9 of a year"),
        Field(
            name="phq9_max_365", dtype=Float32, tags=POINTS, description="highest PHQ-9 of a year"
        ),
        Field(
            name="phq9_sd_365", dtype=Float32, tags=POINTS, description="spread of PHQ-9 in a year"
        ),
        Field(
            name="phq9_slope_365",
            dtype=Float32,
            tags={"unit": "points per 30 days"},
            description="trend of PHQ-9 in a year",
        ),
        Field(
            name="phq9_count_365",
            dtype=Float32,
            tags=COUNT,
            description="PHQ-9 questionnaires in a year",
        ),
        Field(
            name="phq9_self_harm_365",
            dtype=Float32,
            tags=POINTS,
            description="highest answer to PHQ-9 item 9 in a year",
        ),
        Field(name="stored_gad7_total", dtype=Float32, tags=POINTS, description="last GAD-7 total"),
        Field(name="gad7_mean_365", dtype=Float32, tags=POINTS, description="mean GAD-7 of a year"),
        Field(
            name="gad7_slope_365",
            dtype=Float32,
            tags={"unit": "points per 30 days"},
            description="trend of GAD-7 in a year",
        ),
        *(field for instrument in OTHER_INSTRUMENTS for field in _describe_burden(instrument)),
    ],
    source=make_feature_source("survey_history"),
)
