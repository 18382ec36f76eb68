"""Tables of screening, consent, review and audit, and the promotion ledger."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
TEXTS = sa.ARRAY(sa.Text())
APPEND_ONLY_TABLES = ("audit_log", "promotion_ledger")

# A role that may only insert comes with the access layer; until then, and for owners, whom
# privileges do not bind, the trigger is what keeps the record as it was written.
REFUSE_CHANGE = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END $$
"""


def upgrade() -> None:
    _create_consent()
    _create_predictions()
    _create_review_items()
    _create_audit_log()
    _create_promotion_ledger()
    op.execute(REFUSE_CHANGE)
    for table in APPEND_ONLY_TABLES:
        op.execute(
            f"CREATE TRIGGER {table}_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE "
            f"ON {table} FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )


def downgrade() -> None:
    for table in ("promotion_ledger", "audit_log", "review_items", "predictions", "consent"):
        op.drop_table(table)
    op.execute("DROP FUNCTION refuse_change()")


def _create_consent() -> None:
    op.create_table(
        "consent",
        sa.Column("anonymized_id", sa.String(32), primary_key=True),
        sa.Column("granted_at", INSTANT, primary_key=True),
        sa.Column("data_types", TEXTS, nullable=False),
        sa.Column("purposes", TEXTS, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("withdrawn_at", INSTANT),
        sa.Column("key_id", sa.String(8), nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False, server_default=sa.func.now()),
    )
    op.create_index("idx_consent_expires_at", "consent", ["expires_at"])


def _create_predictions() -> None:
    op.create_table(
        "predictions",
        sa.Column("id", sa.UUID(), primary_key=True),
        sa.Column("anonymized_id", sa.String(32), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("risk_score", sa.Float(), nullable=False),
        sa.Column("probability", sa.Float()),
        sa.Column("risk_band", sa.String(16), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("needs_review", sa.Boolean(), nullable=False),
        sa.Column("review_reasons", TEXTS, nullable=False),
        sa.Column("release_version", sa.String(32)),
        sa.Column("answer", postgresql.JSONB(), nullable=False),
    )
    op.create_index("idx_predictions_anonymized_id", "predictions", ["anonymized_id"])
    op.create_index("idx_predictions_created_at", "predictions", ["created_at"])


def _create_review_items() -> None:
    op.create_table(
        "review_items",
        sa.Column("id", sa.UUID(), primary_key=True),
        sa.Column("prediction_id", sa.UUID(), nullable=False),
        sa.Column("anonymized_id", sa.String(32), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("priority", sa.String(16), nullable=False),
        sa.Column("reasons", TEXTS, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
    )
    op.create_index("idx_review_items_status", "review_items", ["status", "created_at"])


def _create_audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("event_type", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("user_role", sa.Text(), nullable=False),
        sa.Column("anonymized_id", sa.String(32)),
        sa.Column("data_types", TEXTS, nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text()),
        sa.Column("details", postgresql.JSONB(), nullable=False),
    )
    op.create_index("idx_audit_log_event_type", "audit_log", ["event_type"])
    op.create_index("idx_audit_log_created_at", "audit_log", ["created_at"])


def _create_promotion_ledger() -> None:
    op.create_table(
        "promotion_ledger",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("from_stage", sa.Text(), nullable=False),
        sa.Column("to_stage", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("gates", postgresql.JSONB(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
    )
    op.create_index("idx_promotion_ledger_model", "promotion_ledger", ["model", "created_at"])
