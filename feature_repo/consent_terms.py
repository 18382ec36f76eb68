"""What an individual can consent to: data types and purposes, as the audit trail names them."""

from typing import Literal, get_args

DataType = Literal["survey", "wearable", "emr"]
Purpose = Literal["training", "screening"]

DATA_TYPES: tuple[DataType, ...] = get_args(DataType)
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
TRAINING: Purpose = "training"
SCREENING: Purpose = "screening"
