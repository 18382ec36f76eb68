"""Columns the estimate may only rise with: more symptoms never lower it, all else equal.

A clinician could not defend a model that ranks a person lower for answering worse, nor a
reason that says "a rise of PHQ-9 lowered it". ADR 0018.
"""

from feature_repo.instruments import OTHER_INSTRUMENTS

MONOTONE_COLUMNS = (
    "phq9_total",
    "gad7_total",
    "phq9_item_9",
    "phq9_self_harm_365",
    "phq9_change",
    *(f"{instrument.key}_last" for instrument in OTHER_INSTRUMENTS),
)
