"""Answers and inputs of predictions as JSON text: written once, read whole, never searched."""

from serving.database.online import change_column_types

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

COLUMNS = ("answer", "inputs")


def upgrade() -> None:
    change_column_types("predictions", COLUMNS, "json")


def downgrade() -> None:
    change_column_types("predictions", COLUMNS, "jsonb")
