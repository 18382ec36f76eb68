"""What is seen of a candidate, and of a release new in Production: what guardrails limit.

Every screening during a rollout leaves two results, one that answered and one in shadow; a
measure compares them on the same individuals. Once the candidate is Production there is nobody
beside it: it is compared with what its predecessor answered before. Definitions:
mlruns_config/guardrails.toml.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from mlruns_config.guardrails import Observed

# One row per screening that the candidate scored, or tried to, with both releases' results. The
# crisis rule's 100 is no estimate: the release's own score is compared.
PAIRS = """
WITH pairs AS (
    SELECT p.created_at, p.arm = 'candidate' AS answered, s.error IS NOT NULL
               AND s.arm = 'candidate' AS failed,
           CAST(p.answer ->> 'model_score' AS float) AS said, s.risk_score AS shadow,
           p.review_reasons && ARRAY['score', 'abstention', 'likely_to_worsen'] AS said_review,
           s.needs_review AS shadow_review
    FROM shadow_predictions s JOIN predictions p ON p.id = s.prediction_id
    WHERE s.release_version = :version OR p.release_version = :version
)
"""
MEASURES = text(
    f"""{PAIRS}
SELECT count(*) AS screenings,
       avg(CAST(failed AS int)) AS error_rate,
       avg(abs(said - shadow)) AS score_shift,
       avg(CASE WHEN answered THEN CAST(said_review AS int) - CAST(shadow_review AS int)
                ELSE CAST(shadow_review AS int) - CAST(said_review AS int) END)
           FILTER (WHERE shadow_review IS NOT NULL) AS review_share_gain
FROM pairs
"""
)
SCORED_BY_BOTH = text(
    f"""{PAIRS}
SELECT count(*) FROM pairs
WHERE created_at >= :since AND said IS NOT NULL AND shadow IS NOT NULL
"""
)
OVERRIDES = text(
    f"""{PAIRS}
SELECT avg(CAST(r.decision = 'override' AS int)) FILTER (WHERE p.arm = 'candidate')
           - avg(CAST(r.decision = 'override' AS int)) FILTER (WHERE p.arm = 'production')
           AS override_rate_gain,
       least(count(*) FILTER (WHERE p.arm = 'candidate'),
             count(*) FILTER (WHERE p.arm = 'production')) AS decisions
FROM review_items r JOIN predictions p ON p.id = r.prediction_id
WHERE r.decision IS NOT NULL AND p.created_at >= (SELECT min(created_at) FROM pairs)
"""
)
#: What a predecessor answered within this time before is what its successor is compared with.
BEFORE = timedelta(days=30)
# Answered on request: batches cover all people and have no answers, so they differ.
ANSWERED = """
WITH answered AS (
    SELECT p.created_at >= :since AS after, p.release_version IS NULL AS unscored,
           CAST(p.answer ->> 'model_score' AS float) AS said,
           p.review_reasons && ARRAY['score', 'abstention', 'likely_to_worsen'] AS reviewed,
           r.decision
    FROM predictions p LEFT JOIN review_items r ON r.prediction_id = p.id
    WHERE p.batch IS NULL AND p.arm = 'production' AND p.created_at >= :before
      AND (p.release_version IS NULL
           OR p.release_version = CASE WHEN p.created_at >= :since THEN :version
                                       ELSE :predecessor END)
)
"""
CHANGES = text(
    f"""{ANSWERED}
SELECT count(*) FILTER (WHERE after) AS screenings,
       least(count(*) FILTER (WHERE after), count(*) FILTER (WHERE NOT after)) AS comparable,
       avg(CAST(unscored AS int)) FILTER (WHERE after) AS unscored_rate,
       abs(avg(said) FILTER (WHERE after) - avg(said) FILTER (WHERE NOT after)) AS mean_shift,
       avg(CAST(reviewed AS int)) FILTER (WHERE after)
           - avg(CAST(reviewed AS int)) FILTER (WHERE NOT after) AS review_share_gain,
       avg(CAST(decision = 'override' AS int)) FILTER (WHERE after)
           - avg(CAST(decision = 'override' AS int)) FILTER (WHERE NOT after)
           AS override_rate_gain,
       least(count(decision) FILTER (WHERE after), count(decision) FILTER (WHERE NOT after))
           AS decisions
FROM answered
"""
)


def observe_candidate(session: Session, version: int) -> Observed:
    """Return how often a candidate scored, and each measure that there is something to say of.

    `override_rate_gain` is left out until clinicians have decided cases of both releases.
    """
    named = {"version": str(version)}
    measured = session.execute(MEASURES, named).one()
    decided = session.execute(OVERRIDES, named).one()
    measures = {
        "error_rate": measured.error_rate,
        "score_shift": measured.score_shift,
        "review_share_gain": measured.review_share_gain,
        "override_rate_gain": decided.override_rate_gain,
    }
    return Observed(measured.screenings, _keep_known(measures), decided.decisions)


def count_scored_by_both(session: Session, version: int, since: datetime) -> int:
    """Return the screenings since then that the candidate and Production have both scored."""
    named = {"version": str(version), "since": since}
    return int(session.execute(SCORED_BY_BOTH, named).scalar_one())


def observe_production(
    session: Session, version: int, predecessor: int, since: datetime
) -> Observed:
    """Compare what a release answered since it became Production with its predecessor before.

    `screenings` is the smaller number of both sides: a predecessor that answered nobody within
    the 30 days before proves nothing.
    """
    moments = {"since": since, "before": since - BEFORE}
    named = {"version": str(version), "predecessor": str(predecessor)}
    measured: Row[Any] = session.execute(CHANGES, moments | named).one()
    names = ("unscored_rate", "mean_shift", "review_share_gain", "override_rate_gain")
    measures = {name: getattr(measured, name) for name in names}
    return Observed(measured.comparable, _keep_known(measures), measured.decisions)


def _keep_known(measures: dict[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in measures.items() if value is not None}
