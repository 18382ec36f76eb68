"""What `feast apply` registers.

Feast reads only this file (see .feastignore): scanning the others too would import each view
a second time under another module name.
"""

from feature_repo.care_history import care_history
from feature_repo.demographics import demographics
from feature_repo.individual import individual
from feature_repo.request_answers import request, request_answers
from feature_repo.screening_v1 import screening_v1
from feature_repo.sequence_outputs import sequence_outputs
from feature_repo.survey_history import survey_history
from feature_repo.wearable_windows import wearable_windows
from feature_repo.weekly_sequence import weekly_sequence

__all__ = [
    "care_history",
    "demographics",
    "individual",
    "request",
    "request_answers",
    "screening_v1",
    "sequence_outputs",
    "survey_history",
    "wearable_windows",
    "weekly_sequence",
]
