"""People sign in to the console: browser sessions, and tickets that open one once."""

import sqlalchemy as sa
from alembic import op

from serving.database.privileges import make_grant_statement

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
TABLES = ("browser_sessions", "sign_in_tickets")


def upgrade() -> None:
    op.create_table(
        "browser_sessions",
        sa.Column("token_hash", sa.LargeBinary(), primary_key=True),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("role", sa.String(32), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("last_seen_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("revoked_at", INSTANT),
    )
    op.create_index("idx_browser_sessions_user_id", "browser_sessions", ["user_id"])
    op.create_index("idx_browser_sessions_expires_at", "browser_sessions", ["expires_at"])
    op.create_table(
        "sign_in_tickets",
        sa.Column("token_hash", sa.LargeBinary(), primary_key=True),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("user_id", sa.Text()),
        sa.Column("role", sa.String(32)),
        sa.Column("nonce", sa.Text()),
        sa.Column("code_verifier", sa.Text()),
        sa.Column("destination", sa.Text()),
    )
    op.create_index("idx_sign_in_tickets_expires_at", "sign_in_tickets", ["expires_at"])
    for table in TABLES:
        op.execute(make_grant_statement(table, "SELECT", "INSERT", "UPDATE", "DELETE"))


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)
