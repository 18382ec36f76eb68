"""Answers and inputs of predictions as JSON text: written once, read whole, never searched."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

COLUMNS = ("answer", "inputs")


def upgrade() -> None:
    _change_type("json")


def downgrade() -> None:
    _change_type("jsonb")


def _change_type(name: str) -> None:
    changes = ", ".join(f"ALTER {one} TYPE {name} USING {one}::{name}" for one in COLUMNS)
    op.execute(f"ALTER TABLE predictions {changes}")
