"""A link of the audit chain is refused unless it follows the head and seals a row that exists.

With one link far ahead, the application's login could stop sealing: no later row would be found.
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

REFUSE_LINK_OUT_OF_ORDER = """
CREATE FUNCTION refuse_link_out_of_order() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE head record;
BEGIN
    SELECT position, row_hash INTO head FROM audit_chain ORDER BY position DESC LIMIT 1;
    IF NEW.position <> coalesce(head.position, 0) + 1
       OR (head.row_hash IS NOT NULL AND NEW.previous_hash <> head.row_hash)
       OR NOT EXISTS (SELECT FROM audit_log WHERE id = NEW.audit_id) THEN
        RAISE EXCEPTION 'the link does not follow the head of the audit chain'
        USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'audit_chain_in_order';
    END IF;
    RETURN NEW;
END $$
"""


def upgrade() -> None:
    op.execute(REFUSE_LINK_OUT_OF_ORDER)
    op.execute(
        "CREATE TRIGGER audit_chain_in_order BEFORE INSERT ON audit_chain"
        " FOR EACH ROW EXECUTE FUNCTION refuse_link_out_of_order()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER audit_chain_in_order ON audit_chain")
    op.execute("DROP FUNCTION refuse_link_out_of_order()")
