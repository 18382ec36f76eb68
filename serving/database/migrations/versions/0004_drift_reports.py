"""Summaries of drift reports: what /drift and mhras_drift_score tell."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from serving.database.privileges import make_grant_statement

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "drift_reports",
        sa.Column("id", sa.UUID(), primary_key=True),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("release_version", sa.Integer(), nullable=False),
        sa.Column("window_begin", INSTANT, nullable=False),
        sa.Column("window_end", INSTANT, nullable=False),
        sa.Column("rows_screened", sa.Integer(), nullable=False),
        sa.Column("rows_tested", sa.Integer(), nullable=False),
        sa.Column("drift_score", sa.Float(), nullable=False),
        sa.Column("drifted_share", sa.Float(), nullable=False),
        sa.Column("missing_drifted_share", sa.Float(), nullable=False),
        sa.Column("scores_drifted", sa.Boolean()),
        sa.Column("threshold", sa.Float(), nullable=False),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("columns", postgresql.JSONB(), nullable=False),
    )
    op.create_index("idx_drift_reports_created_at", "drift_reports", ["created_at"])
    # A flow writes them; the API only tells them.
    op.execute(make_grant_statement("drift_reports", "SELECT"))


def downgrade() -> None:
    op.drop_table("drift_reports")
