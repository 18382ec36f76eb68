"""Contact attempts as records, and the outbox of crisis notices."""

import sqlalchemy as sa
from alembic import op

from serving.database.privileges import APPEND_ONLY, make_grant_statement

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)

#: As review_terms.CRISIS_REASONS was at this revision.
CRISIS = (
    "ARRAY['crisis_item', 'stored_crisis_item', 'unreadable_crisis_item', 'clinician_override']"
)

#: Whatever writes a crisis into the queue, its notice is written in the same transaction.
QUEUE_CRISIS_NOTICE = """
CREATE FUNCTION queue_crisis_notice() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO crisis_notices (review_id, created_at, level, due_at, state, next_attempt_at)
    VALUES (NEW.id, now(), NEW.priority, NEW.due_at, 'waiting', now())
    ON CONFLICT (review_id) DO NOTHING;
    RETURN NULL;
END $$
"""
ANNOUNCE_CRISIS = f"""
CREATE TRIGGER crisis_is_announced AFTER INSERT OR UPDATE OF priority, reasons ON review_items
FOR EACH ROW WHEN (NEW.status <> 'decided' AND NEW.reasons && {CRISIS})
EXECUTE FUNCTION queue_crisis_notice()
"""


def upgrade() -> None:
    _create_contact_attempts()
    _create_crisis_notices()
    op.create_index(
        "idx_review_items_due",
        "review_items",
        ["due_at", "id"],
        postgresql_where=sa.text("status IN ('pending', 'claimed')"),
    )


def _create_contact_attempts() -> None:
    op.create_table(
        "contact_attempts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        sa.Column("review_id", sa.UUID(), nullable=False),
        sa.Column("anonymized_id", sa.String(32), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("channel", sa.String(16), nullable=False),
        sa.Column("reached", sa.Boolean(), nullable=False),
        sa.Column("outcome", sa.String(32), nullable=False),
        sa.Column("next_contact_at", INSTANT),
        sa.Column("note", sa.Text()),
    )
    op.create_index("idx_contact_attempts_review_id", "contact_attempts", ["review_id", "id"])
    op.create_index("idx_contact_attempts_anonymized_id", "contact_attempts", ["anonymized_id"])
    op.execute(make_grant_statement("contact_attempts", *APPEND_ONLY, "DELETE"))


def _create_crisis_notices() -> None:
    op.create_table(
        "crisis_notices",
        sa.Column(
            "review_id",
            sa.UUID(),
            sa.ForeignKey("review_items.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("due_at", INSTANT, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("next_attempt_at", INSTANT, nullable=False),
        sa.Column("settled_at", INSTANT),
    )
    op.create_index(
        "idx_crisis_notices_waiting",
        "crisis_notices",
        ["next_attempt_at"],
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.execute(make_grant_statement("crisis_notices", "SELECT", "INSERT", "UPDATE"))
    op.execute(QUEUE_CRISIS_NOTICE)
    op.execute(ANNOUNCE_CRISIS)


def downgrade() -> None:
    op.drop_index("idx_review_items_due", "review_items")
    op.execute("DROP TRIGGER crisis_is_announced ON review_items")
    op.execute("DROP FUNCTION queue_crisis_notice()")
    op.drop_table("crisis_notices")
    op.drop_table("contact_attempts")
