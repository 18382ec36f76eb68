"""The application may no longer choose the id of an audit row: the database numbers them.

With one row of the highest id, the application's login could stop sealing: the sealer looks for
rows from a little below the newest sealed id on.
"""

from alembic import op

from serving.database.privileges import APPLICATION_ROLE, make_grant_statement

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

COLUMNS = (
    *("created_at", "event_type", "user_id", "user_role", "anonymized_id", "data_types"),
    *("action", "result", "request_id", "network", "details"),
)


def upgrade() -> None:
    op.execute(f"REVOKE INSERT ON audit_log FROM {APPLICATION_ROLE}")
    op.execute(make_grant_statement("audit_log", f"INSERT ({', '.join(COLUMNS)})"))


def downgrade() -> None:
    op.execute(f"REVOKE INSERT ({', '.join(COLUMNS)}) ON audit_log FROM {APPLICATION_ROLE}")
    op.execute(make_grant_statement("audit_log", "INSERT"))
