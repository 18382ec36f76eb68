"""The login under which the API reaches its database: a member of the application's role.

Migrations run as the owner of the tables. The API must not: an owner may drop the triggers
that keep records as they were written.
"""

import psycopg2
from psycopg2 import extensions, sql
from sqlalchemy import URL, make_url

from serving.database.privileges import APPLICATION_ROLE


class UnusableLoginError(ValueError):
    """APP_DATABASE_URL does not name a login of its own; the message names what is missing."""


def ensure_application_login(owner_url: str, application_url: str) -> str:
    """Create the login of `application_url`, or give it that password; return its name.

    Both URLs name the same database. Raises UnusableLoginError, or psycopg2's error when the
    owner may not create roles.
    """
    owner, application = make_url(owner_url), make_url(application_url)
    name, password = _read_login(owner, application)
    dsn = owner.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = psycopg2.connect(dsn)
    try:
        with connection:
            _write_login(connection, name, password)
    finally:
        connection.close()
    return name


def _read_login(owner: URL, application: URL) -> tuple[str, str]:
    if not application.username or not application.password:
        raise UnusableLoginError("APP_DATABASE_URL needs a user and a password")
    if application.username in (owner.username, APPLICATION_ROLE):
        raise UnusableLoginError(
            "APP_DATABASE_URL must name another user than DATABASE_URL, which owns the tables"
        )
    return application.username, str(application.password)


def _write_login(connection: extensions.connection, name: str, password: str) -> None:
    # Only the hash leaves this process: statements may end up in the server's log.
    secret = extensions.encrypt_password(
        password, name, scope=connection, algorithm="scram-sha-256"
    )
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,))
        verb = sql.SQL("ALTER" if cursor.fetchone() else "CREATE")
        role, group = sql.Identifier(name), sql.Identifier(APPLICATION_ROLE)
        options = sql.SQL("LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD {}")
        cursor.execute(
            sql.SQL("{} ROLE {} ").format(verb, role) + options.format(sql.Literal(secret))
        )
        cursor.execute(sql.SQL("GRANT {} TO {}").format(group, role))
        # A pod waits until the database has its revision (`migrate --wait`).
        cursor.execute(sql.SQL("GRANT SELECT ON alembic_version TO {}").format(group))
