"""Batches of predictions: one answer about each individual."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("predictions", sa.Column("batch", sa.String(64)))
    op.create_index(
        "idx_predictions_batch",
        "predictions",
        ["batch", "anonymized_id"],
        unique=True,
        postgresql_where=sa.text("batch IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("idx_predictions_batch", "predictions")
    op.drop_column("predictions", "batch")
