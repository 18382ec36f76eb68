"""The audit row of a person who opens a prediction, or its passport."""

from serving.audit.trail import PREDICTION_VIEW, Event, EventTrail
from serving.database.tables import Prediction


def record_viewing(trail: EventTrail, prediction: Prediction, action: str) -> None:
    details = {"prediction_id": str(prediction.id)}
    trail.record(Event(PREDICTION_VIEW, action, prediction.anonymized_id, details=details))
