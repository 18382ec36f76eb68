"""The audit trail: rows, the hash chain that seals them, signed checkpoints, verification."""

from serving.audit.trail import (
    ACCESS_REFUSED,
    GENERATE_RISK_SCORE,
    SCREENING_REQUEST,
    Event,
    record,
    record_refusal,
    record_unauthenticated,
)

__all__ = [
    "ACCESS_REFUSED",
    "GENERATE_RISK_SCORE",
    "SCREENING_REQUEST",
    "Event",
    "record",
    "record_refusal",
    "record_unauthenticated",
]
