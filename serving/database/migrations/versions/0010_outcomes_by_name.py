"""Predictions name the outcome they estimate; labels are kept by outcome.

Predictions of before estimated a marked rise or acute care, which is now called worsening.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

OLD_OUTCOME = "worsening_v1"


def upgrade() -> None:
    op.add_column(
        "predictions",
        sa.Column("outcome", sa.String(32), nullable=False, server_default=OLD_OUTCOME),
    )
    op.alter_column("predictions", "outcome", server_default=None)
    op.alter_column("prediction_labels", "deteriorated", new_column_name="occurred")
    op.execute("UPDATE prediction_labels SET kind = 'worsening' WHERE kind = 'outcome'")


def downgrade() -> None:
    op.execute("DELETE FROM prediction_labels WHERE kind = 'adverse_course'")
    op.execute("UPDATE prediction_labels SET kind = 'outcome' WHERE kind = 'worsening'")
    op.alter_column("prediction_labels", "occurred", new_column_name="deteriorated")
    op.drop_column("predictions", "outcome")
