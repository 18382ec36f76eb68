"""Verifications of the audit trail as jobs: one row each, with the result once there is one."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from serving.database.privileges import APPEND_ONLY, make_grant_statement

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "audit_verifications",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("started_at", INSTANT, nullable=False),
        sa.Column("started_by", sa.Text(), nullable=False),
        sa.Column("finished_at", INSTANT),
        sa.Column("result", postgresql.JSONB()),
    )
    op.create_index(
        "idx_audit_verifications_started_at", "audit_verifications", [sa.text("started_at DESC")]
    )
    grants = (*APPEND_ONLY, "UPDATE (finished_at, result)")
    op.execute(make_grant_statement("audit_verifications", *grants))


def downgrade() -> None:
    op.drop_table("audit_verifications")
