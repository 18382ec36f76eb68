"""Whose data this state holds: a release of simulated people never answers about real ones."""

import sqlalchemy as sa
from alembic import op

from serving.database.privileges import APPEND_ONLY, make_grant_statement

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "data_origins",
        sa.Column("origin", sa.Text(), primary_key=True),
        sa.Column("noted_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.execute(make_grant_statement("data_origins", *APPEND_ONLY))
    # Of a state with consents it is not known until the next ingestion or training notes it.
    op.execute(
        "INSERT INTO data_origins SELECT 'unknown', now() WHERE EXISTS (SELECT 1 FROM consent)"
    )


def downgrade() -> None:
    op.drop_table("data_origins")
