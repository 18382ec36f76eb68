"""Review work, consent history, erasures, token revocations, the audit chain, the app's role."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from serving.database.privileges import (
    APPEND_ONLY,
    APPLICATION_ROLE,
    make_grant_statement,
    make_role_statement,
)

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
TEXTS = sa.ARRAY(sa.Text())
CHANGEABLE = ("SELECT", "INSERT", "UPDATE", "DELETE")

PRIVILEGES: dict[str, Sequence[str]] = {
    "alembic_version": ("SELECT",),
    "consent": CHANGEABLE,
    # Written by the trigger alone; removed with the individual.
    "consent_changes": ("SELECT", "DELETE"),
    "predictions": ("SELECT", "INSERT", "DELETE"),
    "review_items": CHANGEABLE,
    "review_events": ("SELECT", "INSERT", "DELETE"),
    "crisis_overrides": ("SELECT", "INSERT", "DELETE"),
    "erasures": APPEND_ONLY,
    "erasure_stores": ("SELECT", "INSERT", "UPDATE"),
    "token_revocations": APPEND_ONLY,
    "audit_log": APPEND_ONLY,
    "audit_chain": APPEND_ONLY,
    "audit_checkpoints": APPEND_ONLY,
    "promotion_ledger": APPEND_ONLY,
}
NEW_RECORDS = ("erasures", "token_revocations", "audit_chain", "audit_checkpoints")
NEW_TABLES = (
    *("audit_checkpoints", "audit_chain", "token_revocations", "erasure_stores", "erasures"),
    *("consent_changes", "crisis_overrides", "review_events"),
)
REVIEW_COLUMNS = (
    *("due_at", "claimed_by", "claimed_at", "decided_by", "decided_at"),
    *("decision", "new_band", "reason_code", "comment"),
)

# One notice for each individual up to a ward's worth, then one that means everybody: a notice
# for each of a million ingested consents would fill every worker's queue.
RECORD_CONSENT_CHANGE = """
CREATE FUNCTION record_consent_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    actor text := coalesce(nullif(current_setting('mhras.user_id', true), ''), session_user);
    changed bigint;
BEGIN
    INSERT INTO consent_changes (changed_at, changed_by, change, anonymized_id, granted_at,
                                 data_types, purposes, expires_at, withdrawn_at)
    SELECT clock_timestamp(), actor,
           CASE WHEN TG_OP = 'DELETE' THEN 'erased'
                WHEN c.withdrawn_at IS NOT NULL THEN 'withdrawn'
                WHEN TG_OP = 'INSERT' THEN 'granted' ELSE 'changed' END,
           c.anonymized_id, c.granted_at, c.data_types, c.purposes, c.expires_at, c.withdrawn_at
    FROM changed_rows c;
    GET DIAGNOSTICS changed = ROW_COUNT;
    IF changed > 1000 THEN
        PERFORM pg_notify('mhras_changes', 'consent:*');
    ELSE
        PERFORM pg_notify('mhras_changes', 'consent:' || c.anonymized_id) FROM changed_rows c;
    END IF;
    RETURN NULL;
END $$
"""
# A drop that repeats a consent from before an erasure must not bring it back.
END_CONSENT_WITH_ERASURE = """
CREATE FUNCTION end_consent_with_erasure() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
BEGIN
    SELECT coalesce(NEW.withdrawn_at, max(requested_at)) INTO NEW.withdrawn_at
    FROM erasures WHERE anonymized_id = NEW.anonymized_id AND requested_at >= NEW.granted_at;
    RETURN NEW;
END $$
"""
TELL_OF_REVOCATION = """
CREATE FUNCTION tell_of_revocation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('mhras_changes', 'tokens');
    RETURN NULL;
END $$
"""


def upgrade() -> None:
    _extend_review_items()
    _create_review_events()
    _create_crisis_overrides()
    _create_consent_changes()
    _create_erasures()
    _create_token_revocations()
    _create_audit_chain()
    _index_the_audit_log()
    _create_triggers()
    _grant_privileges()


def downgrade() -> None:
    for operation in ("insert", "update", "delete"):
        op.execute(f"DROP TRIGGER consent_{operation}_is_recorded ON consent")
    op.execute("DROP TRIGGER consent_ends_with_erasure ON consent")
    for index in ("anonymized_id", "listed_individuals"):
        op.drop_index(f"idx_audit_log_{index}", "audit_log")
    for table in NEW_TABLES:
        op.drop_table(table)
    for index in ("anonymized_id", "prediction_id"):
        op.drop_index(f"idx_review_items_{index}", "review_items")
    for column in REVIEW_COLUMNS:
        op.drop_column("review_items", column)
    for function in ("record_consent_change", "end_consent_with_erasure", "tell_of_revocation"):
        op.execute(f"DROP FUNCTION {function}()")
    # The role stays: other databases of the cluster may use it.
    op.execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {APPLICATION_ROLE}")
    op.execute(f"REVOKE ALL ON SCHEMA public FROM {APPLICATION_ROLE}")


def _extend_review_items() -> None:
    op.add_column("review_items", sa.Column("due_at", INSTANT))
    # Those queued before had no due time; the strictest one is theirs.
    op.execute("UPDATE review_items SET due_at = created_at + interval '1 hour'")
    op.alter_column("review_items", "due_at", nullable=False)
    for name in ("claimed_by", "decided_by", "comment"):
        op.add_column("review_items", sa.Column(name, sa.Text()))
    for name in ("claimed_at", "decided_at"):
        op.add_column("review_items", sa.Column(name, INSTANT))
    for name, length in (("decision", 16), ("new_band", 16), ("reason_code", 32)):
        op.add_column("review_items", sa.Column(name, sa.String(length)))
    op.create_index("idx_review_items_anonymized_id", "review_items", ["anonymized_id"])
    op.create_index("idx_review_items_prediction_id", "review_items", ["prediction_id"])


def _create_review_events() -> None:
    op.create_table(
        "review_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        sa.Column("review_id", sa.UUID(), nullable=False),
        sa.Column("anonymized_id", sa.String(32), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("note", sa.Text()),
    )
    op.create_index("idx_review_events_review_id", "review_events", ["review_id", "id"])
    op.create_index("idx_review_events_anonymized_id", "review_events", ["anonymized_id"])


def _create_crisis_overrides() -> None:
    op.create_table(
        "crisis_overrides",
        sa.Column("id", sa.UUID(), primary_key=True),
        sa.Column("prediction_id", sa.UUID(), nullable=False),
        sa.Column("review_id", sa.UUID(), nullable=False),
        sa.Column("anonymized_id", sa.String(32), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
    )
    for column in ("prediction_id", "anonymized_id"):
        op.create_index(f"idx_crisis_overrides_{column}", "crisis_overrides", [column])


def _create_consent_changes() -> None:
    op.create_table(
        "consent_changes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        sa.Column("anonymized_id", sa.String(32), nullable=False),
        sa.Column("changed_at", INSTANT, nullable=False),
        sa.Column("changed_by", sa.Text(), nullable=False),
        sa.Column("change", sa.String(16), nullable=False),
        sa.Column("granted_at", INSTANT, nullable=False),
        sa.Column("data_types", TEXTS, nullable=False),
        sa.Column("purposes", TEXTS, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("withdrawn_at", INSTANT),
    )
    op.create_index("idx_consent_changes_anonymized_id", "consent_changes", ["anonymized_id", "id"])


def _create_erasures() -> None:
    op.create_table(
        "erasures",
        sa.Column("id", sa.UUID(), primary_key=True),
        sa.Column("anonymized_id", sa.String(32), nullable=False),
        sa.Column("requested_at", INSTANT, nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("release_versions", TEXTS, nullable=False),
        sa.Column("receipt", postgresql.JSONB(), nullable=False),
    )
    op.create_index("idx_erasures_anonymized_id", "erasures", ["anonymized_id", "requested_at"])
    op.create_table(
        "erasure_stores",
        sa.Column("erasure_id", sa.UUID(), sa.ForeignKey("erasures.id"), primary_key=True),
        sa.Column("store", sa.String(32), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("changed_at", INSTANT, nullable=False),
        sa.Column("details", postgresql.JSONB(), nullable=False),
    )
    op.create_index("idx_erasure_stores_state", "erasure_stores", ["state"])


def _create_token_revocations() -> None:
    op.create_table(
        "token_revocations",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("revoked_by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("jti", sa.Text()),
        sa.Column("user_id", sa.Text()),
        sa.Column("not_before", INSTANT),
        sa.CheckConstraint(
            "(jti IS NULL) <> (not_before IS NULL) AND (jti IS NULL OR user_id IS NULL)",
            name="revokes_one_token_or_all_before",
        ),
    )
    op.create_index("idx_token_revocations_created_at", "token_revocations", ["created_at"])


def _create_audit_chain() -> None:
    op.create_table(
        "audit_chain",
        sa.Column("position", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("audit_id", sa.BigInteger(), nullable=False, unique=True),
        sa.Column("previous_hash", sa.LargeBinary(), nullable=False),
        sa.Column("row_hash", sa.LargeBinary(), nullable=False),
        sa.Column("sealed_at", INSTANT, nullable=False),
    )
    op.create_table(
        "audit_checkpoints",
        sa.Column("position", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("signed_at", INSTANT, nullable=False),
        sa.Column("document", postgresql.JSONB(), nullable=False),
    )


def _index_the_audit_log() -> None:
    op.create_index("idx_audit_log_anonymized_id", "audit_log", ["anonymized_id", "id"])
    # Rows that show many individuals at once keep them in an array; few rows do.
    op.execute(
        "CREATE INDEX idx_audit_log_listed_individuals ON audit_log"
        " USING gin (details jsonb_path_ops) WHERE event_type = 'review_list'"
    )


def _create_triggers() -> None:
    for statement in (RECORD_CONSENT_CHANGE, END_CONSENT_WITH_ERASURE, TELL_OF_REVOCATION):
        op.execute(statement)
    for operation, rows in (("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")):
        op.execute(
            f"CREATE TRIGGER consent_{operation.lower()}_is_recorded AFTER {operation} ON consent"
            f" REFERENCING {rows} TABLE AS changed_rows"
            " FOR EACH STATEMENT EXECUTE FUNCTION record_consent_change()"
        )
    op.execute(
        "CREATE TRIGGER consent_ends_with_erasure BEFORE INSERT ON consent"
        " FOR EACH ROW EXECUTE FUNCTION end_consent_with_erasure()"
    )
    op.execute(
        "CREATE TRIGGER revocation_is_told AFTER INSERT ON token_revocations"
        " FOR EACH STATEMENT EXECUTE FUNCTION tell_of_revocation()"
    )
    for table in NEW_RECORDS:
        op.execute(
            f"CREATE TRIGGER {table}_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE "
            f"ON {table} FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )


def _grant_privileges() -> None:
    op.execute(make_role_statement())
    # PostgreSQL 14 still lets everybody create tables in this schema.
    op.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    op.execute(f"GRANT USAGE ON SCHEMA public TO {APPLICATION_ROLE}")
    for table, privileges in PRIVILEGES.items():
        op.execute(make_grant_statement(table, *privileges))
