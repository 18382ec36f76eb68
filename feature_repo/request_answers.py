"""The on-demand view of the answers sent with a request; what it computes is answer_features."""

from typing import Any

from feature_repo.answer_features import ANSWER_FEATURES, REQUEST_FIELDS
from feature_repo.demographics import demographics
from feature_repo.feast_library import Field, Float64, RequestSource, on_demand_feature_view
from feature_repo.survey_history import survey_history

request = RequestSource(
    name="screening_request",
    schema=[Field(name=name, dtype=Float64) for name in REQUEST_FIELDS],
    description="Answers of the questionnaire that is being screened, and its day.",
)


@on_demand_feature_view(
    name="request_answers",
    sources=[request, survey_history, demographics],
    schema=[Field(name=name, dtype=Float64) for name in ANSWER_FEATURES],
    mode="python",
    tags={"data_type": "survey"},
)
def request_answers(inputs: dict[str, Any]) -> dict[str, Any]:
    # Feast stores this function's source, so it names what it needs itself.
    from feature_repo.answer_features import compute_answer_features

    return {name: column.tolist() for name, column in compute_answer_features(inputs).items()}
