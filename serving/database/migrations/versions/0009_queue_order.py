"""The review queue is ordered by crisis level and score."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

#: Item 9 of a crisis that was queued before its level was kept: counted as the worst.
UNKNOWN_LEVEL = 3


def upgrade() -> None:
    op.add_column(
        "review_items",
        sa.Column("crisis_level", sa.SmallInteger(), nullable=False, server_default="0"),
    )
    op.add_column(
        "review_items", sa.Column("risk_score", sa.Float(), nullable=False, server_default="0")
    )
    op.execute(
        f"UPDATE review_items SET crisis_level = {UNKNOWN_LEVEL} WHERE reasons && "
        "ARRAY['crisis_item', 'unreadable_crisis_item', 'clinician_override']"
    )
    op.execute(
        "UPDATE review_items SET risk_score = predictions.risk_score FROM predictions "
        "WHERE predictions.id = review_items.prediction_id"
    )
    for column in ("crisis_level", "risk_score"):
        op.alter_column("review_items", column, server_default=None)


def downgrade() -> None:
    op.drop_column("review_items", "risk_score")
    op.drop_column("review_items", "crisis_level")
