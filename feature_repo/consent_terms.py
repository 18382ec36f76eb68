"""What an individual can consent to: data types and purposes, as the audit trail names them."""

DATA_TYPES = ("survey", "wearable", "emr")
PURPOSES = ("training", "screening")
