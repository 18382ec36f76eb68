"""Columns the estimate may only rise with: more symptoms never lower it, all else equal.

A clinician could not defend a model that ranks a person lower for answering worse, nor a
reason that a rise of PHQ-9 lowered the priority. One worse answer raises its item, the total,
the change and the distance from the person's own mean together, so each of them is constrained;
then no single answer can lower a member's output (ADR 0030).
"""

from feature_repo.answer_features import ANSWER_FEATURES, NO_SYMPTOMS
from feature_repo.instruments import OTHER_INSTRUMENTS

MONOTONE_COLUMNS = (
    *(name for name in ANSWER_FEATURES if name not in NO_SYMPTOMS),
    "phq9_self_harm_365",
    "phq9_max_365",
    *(f"{instrument.key}_last" for instrument in OTHER_INSTRUMENTS),
)
