"""A realistic answer for the API's documentation; a test validates it against the schema."""

from typing import Any

EXAMPLE_ANSWER: dict[str, Any] = {
    "prediction_id": "0b8f3a6e-6d1c-4d52-9b0e-0a4c5f1d2e3f",
    "anonymized_id": "5f0c1d7e2a9b4c3d8e6f7a1b2c3d4e5f",
    "created_at": "2026-11-28T09:30:00Z",
    "summary": "High review priority: 49% (38%-61%) chance of an adverse course within 90 days.",
    "risk_score": 61.0,
    "risk_band": "high",
    "decided_by": "release",
    "rules_version": 1,
    "model_score": 61.0,
    "outcome": "adverse_course",
    "probability": 0.49,
    "interval": {"low": 0.38, "high": 0.61, "coverage": 0.9},
    "confidence": 0.74,
    "reasons": [
        {
            "feature": "phq9_total",
            "label": "PHQ-9 total",
            "value": 12.0,
            "unit": "points",
            "usual_low": 1.0,
            "usual_high": 17.0,
            "direction": "raises",
            "size": "moderate",
            "effect": 0.41,
            "text": "PHQ-9 12 of 27, moderate; raises the priority, moderate effect",
        },
        {
            "feature": "steps_mean_28",
            "label": "steps a day, mean of 28 days",
            "value": 8200.0,
            "unit": "steps",
            "usual_low": 2500.0,
            "usual_high": 11000.0,
            "direction": "lowers",
            "size": "small",
            "effect": -0.12,
            "text": "steps a day, mean of 28 days: 8,200 steps (2,500 to 11,000 is usual in this "
            "cohort); lowers the priority, small effect",
        },
    ],
    "counterfactuals": [],
    "rule": None,
    "trend": [],
    "needs_review": True,
    "review_reasons": [{"code": "high_priority", "text": "The priority is high."}],
    "crisis_guidance": None,
    "missing_data": ["emr"],
    "data_as_of": {"wearable_windows": "2026-11-27T00:00:00Z"},
    "degraded": [],
    "known_individual": True,
    "release": {
        "name": "mhras-risk",
        "version": 1,
        "feature_service": "screening_v1",
        "members": [
            {
                "name": "lightgbm",
                "registered_model": "mhras-lightgbm",
                "version": 1,
                "probability": 0.51,
                "weight": 0.6,
            }
        ],
    },
}
