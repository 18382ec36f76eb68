"""The review reason of a crisis override is named clinician_override."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

OLD, NEW = "clinicians_word", "clinician_override"


def upgrade() -> None:
    _rename_reason(OLD, NEW)


def downgrade() -> None:
    _rename_reason(NEW, OLD)


def _rename_reason(old: str, new: str) -> None:
    op.execute(
        f"UPDATE review_items SET reasons = array_replace(reasons, '{old}', '{new}') "
        f"WHERE '{old}' = ANY(reasons)"
    )
