"""An idempotency key is answered once, whichever of two writers comes late.

A statement whose reply was lost may lie in a frozen server for longer than the key stays claimed:
the repetition then screens too. The later of both is refused with all its rows.
"""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

REFUSE_SECOND_ANSWER = """
CREATE FUNCTION refuse_second_answer() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
BEGIN
    RAISE EXCEPTION 'this key was answered before' USING
        ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'idempotency_keys_answered_once';
END $$
"""


def upgrade() -> None:
    op.execute(REFUSE_SECOND_ANSWER)
    op.execute(
        "CREATE TRIGGER idempotency_keys_answered_once BEFORE UPDATE ON idempotency_keys"
        " FOR EACH ROW WHEN (OLD.prediction_id IS NOT NULL"
        " AND NEW.prediction_id IS DISTINCT FROM OLD.prediction_id)"
        " EXECUTE FUNCTION refuse_second_answer()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER idempotency_keys_answered_once ON idempotency_keys")
    op.execute("DROP FUNCTION refuse_second_answer()")
