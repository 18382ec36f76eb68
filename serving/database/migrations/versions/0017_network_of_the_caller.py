"""The address of the client in the audit trail, as IHE BALP requires."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("audit_log", sa.Column("network", sa.Text()))


def downgrade() -> None:
    op.drop_column("audit_log", "network")
