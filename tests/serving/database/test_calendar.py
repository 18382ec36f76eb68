"""The application's login cannot write an instant that stops what reads it for good."""

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError

from serving.auth.revocations import RevocationList
from serving.database.sessions import open_session

#: The trail is read as text: it keeps what was written.
READ_AS_TEXT = {"audit_log", "audit_chain", "audit_checkpoints"}
BEYOND = ["12000-01-01", "4000-01-01 BC", "infinity", "-infinity"]
REVOKE = text(
    "INSERT INTO token_revocations (created_at, revoked_by, reason, jti, not_before)"
    " VALUES (CAST(:created_at AS timestamptz), 'u', 'logout', :jti,"
    " CAST(:not_before AS timestamptz))"
)
WRITTEN_INSTANTS = text(
    "SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
    " WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"
    " AND a.atttypid = 'timestamptz'::regtype AND a.attnum > 0 AND NOT a.attisdropped"
    " AND (has_column_privilege('mhras_app', c.oid, a.attnum, 'INSERT')"
    " OR has_column_privilege('mhras_app', c.oid, a.attnum, 'UPDATE'))"
)


@pytest.fixture(scope="module")
def application(application_url):
    engine = create_engine(application_url)
    yield engine
    engine.dispose()


def test_every_instant_that_the_application_writes_is_within_the_calendar(application):
    """A new table or column joins `*_in_calendar`, or is read as text like the trail."""
    with application.connect() as connection:
        written = {tuple(row) for row in connection.execute(WRITTEN_INSTANTS)}
        checks = connection.execute(
            text(
                "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint"
                " WHERE conname LIKE '%\\_in\\_calendar'"
            )
        ).all()
    checked = dict(checks)
    unchecked = {
        (table, column)
        for table, column in written
        if table not in READ_AS_TEXT and f"({column} >= " not in checked.get(table, "")
    }

    assert len(written) > 30
    assert unchecked == set()


@pytest.mark.parametrize("beyond", BEYOND)
@pytest.mark.parametrize("column", ["created_at", "not_before"])
def test_one_revocation_cannot_stop_reading_them_all(application, beyond, column):
    values = {"created_at": "now", "not_before": "now", "jti": None, column: beyond}
    with (
        pytest.raises(IntegrityError, match="token_revocations_in_calendar"),
        application.begin() as connection,
    ):
        connection.execute(REVOKE, values)
    with open_session(application) as session:
        RevocationList.read(session)


@pytest.mark.parametrize("instant", ["0001-01-01T00:00Z", "9999-12-31T23:59:59.999999Z"])
def test_the_ends_of_the_calendar_are_written(application, instant):
    """An open end of a consent is the last instant."""
    with application.begin() as connection:
        connection.execute(REVOKE, {"created_at": instant, "not_before": None, "jti": instant})
