"""Tokens of EHR clients that were accepted, each until it expires."""

import sqlalchemy as sa
from alembic import op

from serving.database.privileges import make_grant_statement

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "client_token_uses",
        sa.Column("client_id", sa.String(40), primary_key=True),
        sa.Column("token_hash", sa.LargeBinary(), primary_key=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("idx_client_token_uses_expires_at", "client_token_uses", ["expires_at"])
    op.execute(make_grant_statement("client_token_uses", "SELECT", "INSERT", "DELETE"))


def downgrade() -> None:
    op.drop_table("client_token_uses")
