"""Drift reports: requests and batches apart, and the modalities that raised an alarm."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    kind = sa.Column("dataset", sa.String(16), nullable=False, server_default="screenings")
    op.add_column("drift_reports", kind)
    op.add_column("drift_reports", sa.Column("alarms", JSONB, nullable=False, server_default="[]"))
    # Until now a report acted from its threshold on.
    op.execute(
        """UPDATE drift_reports SET alarms = '["features"]' WHERE drift_score >= threshold"""
    )


def downgrade() -> None:
    op.drop_column("drift_reports", "alarms")
    op.drop_column("drift_reports", "dataset")
