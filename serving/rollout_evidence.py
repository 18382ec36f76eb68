"""What is seen of a candidate in use: the measures that its guardrails limit.

Every screening during a rollout leaves two words, one that answered and one in shadow; a
measure compares them on the same individuals. Definitions: mlruns_config/guardrails.toml.
"""

from sqlalchemy import text
from sqlalchemy.orm import Session

from mlruns_config.guardrails import Observed

# One row per screening that the candidate scored, or tried to, with both releases' words. The
# crisis rule's 100 is nobody's word: the release's own score is compared.
PAIRS = """
WITH pairs AS (
    SELECT p.created_at, p.arm = 'candidate' AS answered, s.error IS NOT NULL
               AND s.arm = 'candidate' AS failed,
           CAST(p.answer ->> 'model_score' AS float) AS said, s.risk_score AS shadow,
           p.review_reasons && ARRAY['score', 'abstention'] AS said_review,
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


def observe_candidate(session: Session, version: int) -> Observed:
    """Return how often a candidate scored, and each measure that there is something to say of.

    `override_rate_gain` is left out until clinicians have decided cases of both releases.
    """
    named = {"version": str(version)}
    found = session.execute(MEASURES, named).one()
    decided = session.execute(OVERRIDES, named).one()
    measures = {
        "error_rate": found.error_rate,
        "score_shift": found.score_shift,
        "review_share_gain": found.review_share_gain,
        "override_rate_gain": decided.override_rate_gain,
    }
    known = {name: float(value) for name, value in measures.items() if value is not None}
    return Observed(found.screenings, known, decided.decisions)
