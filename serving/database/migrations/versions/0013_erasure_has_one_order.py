"""A screening that began before an erasure leaves no rows after it; updates keep erasures too.

The trigger runs a query of its own after it has the individual's lock, so it sees an erasure that
was committed while the insert waited. An erasure takes the same lock exclusively.
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

REFUSE_PREDICTION_OF_ERASED = """
CREATE FUNCTION refuse_prediction_of_erased() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtextextended(NEW.anonymized_id, 0));
    IF EXISTS (SELECT FROM erasures WHERE anonymized_id = NEW.anonymized_id)
       AND NOT EXISTS (SELECT FROM consent WHERE anonymized_id = NEW.anonymized_id) THEN
        RAISE EXCEPTION 'the individual was erased and has no consent since'
        USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'predictions_not_erased';
    END IF;
    RETURN NEW;
END $$
"""
CONSENT_TRIGGER = (
    "CREATE TRIGGER consent_ends_with_erasure BEFORE {events} ON consent"
    " FOR EACH ROW EXECUTE FUNCTION end_consent_with_erasure()"
)


def upgrade() -> None:
    op.execute(REFUSE_PREDICTION_OF_ERASED)
    op.execute(
        "CREATE TRIGGER predictions_not_erased BEFORE INSERT ON predictions"
        " FOR EACH ROW EXECUTE FUNCTION refuse_prediction_of_erased()"
    )
    _replace_consent_trigger("INSERT OR UPDATE")


def downgrade() -> None:
    _replace_consent_trigger("INSERT")
    op.execute("DROP TRIGGER predictions_not_erased ON predictions")
    op.execute("DROP FUNCTION refuse_prediction_of_erased()")


def _replace_consent_trigger(events: str) -> None:
    op.execute("DROP TRIGGER consent_ends_with_erasure ON consent")
    op.execute(CONSENT_TRIGGER.format(events=events))
