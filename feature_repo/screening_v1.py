"""The models' contract: what training reads as of the past, serving reads as of now."""

from feature_repo.care_history import care_history
from feature_repo.demographics import demographics
from feature_repo.feast_library import FeatureService
from feature_repo.request_answers import request_answers
from feature_repo.survey_history import survey_history
from feature_repo.wearable_windows import wearable_windows
from feature_repo.weekly_sequence import weekly_sequence

screening_v1 = FeatureService(
    name="screening_v1",
    features=[
        request_answers,
        survey_history,
        wearable_windows,
        care_history,
        demographics,
        weekly_sequence,
    ],
    description="Inputs of every member of a release with contract version 1.",
)
