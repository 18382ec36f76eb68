"""A prediction as a FHIR R4 RiskAssessment with the answers it rests on.

Source: hl7.org/fhir/R4/riskassessment.html. Probabilities are percentages (ras-1, ras-2), and
without `whenPeriod` a risk would apply over the subject's lifespan.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from feature_repo.outcomes import HORIZON_DAYS, OUTCOMES
from serving.fhir.elements import (
    OUTCOME_SYSTEM,
    PREDICTION_SYSTEM,
    PRIORITY_SYSTEM,
    UCUM,
    Resource,
    make_code,
    make_concept,
    make_percentage,
    write_instant,
)
from serving.fhir.observations import make_observations
from serving.screening.answers import INTENDED_USE

TEXTS = {outcome.key: outcome.text for outcome in OUTCOMES}
MITIGATION = "Review priority for a clinician; not a diagnosis."
DEVICE = "release"


def make_risk_assessment(
    prediction: Mapping[str, Any],
    subject: Resource,
    is_amended: bool = False,
    basis: Sequence[Resource] = (),
) -> Resource:
    """Return the RiskAssessment of a prediction, of which `describe_row` gives the columns.

    `is_amended`: a clinician has overridden it since. `basis` refers to resources of the caller
    that were used; without any, the answers are contained as Observations.
    """
    observations = [] if basis else make_observations(prediction, subject)
    contained = [_make_device(prediction), *observations]
    references = basis or [{"reference": f"#{observation['id']}"} for observation in observations]
    return {
        "resourceType": "RiskAssessment",
        "id": str(prediction["id"]),
        "contained": contained,
        "identifier": [{"system": PREDICTION_SYSTEM, "value": str(prediction["id"])}],
        "status": "amended" if is_amended else "final",
        "method": {"text": _name_method(prediction)},
        "code": make_concept(
            OUTCOME_SYSTEM, prediction["outcome"], "Review priority for mental health"
        ),
        "subject": subject,
        "occurrenceDateTime": write_instant(prediction["created_at"]),
        "performer": {"reference": f"#{DEVICE}"},
        **({"basis": list(references)} if references else {}),
        "prediction": list(_make_predictions(prediction)),
        "mitigation": MITIGATION,
        "note": [{"text": _summarise(prediction)}, {"text": INTENDED_USE}],
    }


def _make_device(prediction: Mapping[str, Any]) -> Resource:
    return {
        "resourceType": "Device",
        "id": DEVICE,
        "deviceName": [{"name": "MHRAS", "type": "model-name"}],
        "version": [{"value": str(prediction["release_version"] or "rules alone")}],
        "type": {"text": "Software that prioritises review by a clinician"},
    }


def _name_method(prediction: Mapping[str, Any]) -> str:
    version = prediction["release_version"]
    decided_by = prediction["answer"].get("decided_by", "release")
    used = f"mhras-risk release {version}" if version else "rules without a release"
    return f"{used}; decided by {str(decided_by).replace('_', ' ')}"


def _make_predictions(prediction: Mapping[str, Any]) -> Iterator[Resource]:
    """Yield the priority, then each outcome's probability and its interval as elements apart.

    `probability[x]` is a number or a range, never both.
    """
    horizon = _make_horizon(prediction["created_at"])
    band = make_code(PRIORITY_SYSTEM, prediction["risk_band"])
    for place, estimated in enumerate(list_outcomes(prediction)):
        outcome = make_concept(
            OUTCOME_SYSTEM, estimated["outcome"], TEXTS.get(estimated["outcome"])
        )
        common: Resource = {"outcome": outcome, "whenPeriod": horizon}
        probability = estimated.get("probability")
        yield {
            "outcome": outcome,
            **({} if probability is None else {"probabilityDecimal": make_percentage(probability)}),
            **({"qualitativeRisk": {"coding": [band]}} if place == 0 else {}),
            "whenPeriod": horizon,
            "rationale": _explain(prediction, estimated),
        }
        if probability is not None and estimated.get("interval"):
            yield common | _make_range(estimated["interval"])


def list_outcomes(prediction: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return every outcome that the answer estimates, that of the priority first."""
    answer = prediction["answer"]
    estimated = {name: prediction[name] for name in ("outcome", "probability")}
    return answer.get("outcomes") or [estimated | {"interval": answer.get("interval")}]


def _make_range(interval: Mapping[str, Any]) -> Resource:
    low, high = (
        {
            "value": make_percentage(interval[end]),
            "unit": "%",
            "system": UCUM,
            "code": "%",
        }
        for end in ("low", "high")
    )
    return {
        "probabilityRange": {"low": low, "high": high},
        "rationale": f"Interval of this probability, {interval['coverage']:.0%}.",
    }


def _explain(prediction: Mapping[str, Any], estimated: Mapping[str, Any]) -> str:
    answer = prediction["answer"]
    reasons = [str(reason["text"]) for reason in answer.get("reasons", []) if "text" in reason]
    rules = [str(reason["text"]) for reason in answer.get("review_reasons", [])]
    texts = [str(estimated.get("text") or ""), *rules, *reasons]
    return " ".join(text for text in texts if text) or _summarise(prediction)


def _summarise(prediction: Mapping[str, Any]) -> str:
    return str(prediction["answer"].get("summary") or "no summary")


def _make_horizon(begin: datetime | str) -> Resource:
    start = write_instant(begin)
    end = datetime.fromisoformat(start) + timedelta(days=HORIZON_DAYS)
    return {"start": start, "end": end.isoformat()}
