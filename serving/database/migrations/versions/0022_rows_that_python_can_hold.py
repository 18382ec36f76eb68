"""One row of the application's login can no longer stop a thread or a flow that reads it.

The database numbers audit rows: with one row of the highest id, sealing found no later one. And it
refuses instants that Python cannot hold, such as a year 12000; the trail alone keeps them, because
it reads them as text. Rows of before are not checked, so the tables are locked for a moment only.
"""

from alembic import op

from serving.database.privileges import APPLICATION_ROLE, make_grant_statement

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

AUDIT_COLUMNS = (
    *("created_at", "event_type", "user_id", "user_role", "anonymized_id", "data_types"),
    *("action", "result", "request_id", "network", "details"),
)
#: Every instant that the application writes outside of the trail.
INSTANTS = {
    "audit_verifications": ("started_at", "finished_at"),
    "browser_sessions": ("created_at", "last_seen_at", "expires_at", "revoked_at"),
    "client_token_uses": ("expires_at",),
    "consent": ("granted_at", "expires_at", "withdrawn_at", "recorded_at"),
    "contact_attempts": ("created_at", "next_contact_at"),
    "crisis_notices": ("created_at", "due_at", "next_attempt_at", "settled_at"),
    "crisis_overrides": ("created_at",),
    "data_origins": ("noted_at",),
    "erasure_stores": ("changed_at",),
    "erasures": ("requested_at",),
    "idempotency_keys": ("claimed_at",),
    "predictions": ("created_at",),
    "promotion_ledger": ("created_at",),
    "review_events": ("created_at",),
    "review_items": ("created_at", "due_at", "claimed_at", "decided_at"),
    "shadow_predictions": ("created_at",),
    "sign_in_tickets": ("expires_at",),
    "token_revocations": ("created_at", "not_before"),
}
#: Python's calendar; an open end of a consent is its last instant.
CALENDAR = "BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'"


def upgrade() -> None:
    op.execute(f"REVOKE INSERT ON audit_log FROM {APPLICATION_ROLE}")
    op.execute(make_grant_statement("audit_log", f"INSERT ({', '.join(AUDIT_COLUMNS)})"))
    for table, columns in INSTANTS.items():
        held = " AND ".join(f"{column} {CALENDAR}" for column in columns)
        op.execute(
            f"ALTER TABLE {table} ADD CONSTRAINT {table}_in_calendar CHECK ({held}) NOT VALID"
        )


def downgrade() -> None:
    for table in INSTANTS:
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_in_calendar")
    op.execute(f"REVOKE INSERT ({', '.join(AUDIT_COLUMNS)}) ON audit_log FROM {APPLICATION_ROLE}")
    op.execute(make_grant_statement("audit_log", "INSERT"))
