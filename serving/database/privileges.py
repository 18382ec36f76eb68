"""What the application's database role may do: only what it needs, and never rewrite a record.

The role owns nothing, so neither does ownership let it past the triggers of append-only
tables. Each migration grants on the tables it creates.
"""

#: A group without login, known to every database of the cluster; logins are its members.
APPLICATION_ROLE = "mhras_app"

#: For tables that are a record: written once, read for ever.
APPEND_ONLY = ("SELECT", "INSERT")


def make_role_statement() -> str:
    """Return the SQL that creates the role unless it exists, also when two migrations race."""
    return f"""
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{APPLICATION_ROLE}') THEN
        CREATE ROLE {APPLICATION_ROLE} NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL; -- another database's migration created it just now
END $$
"""


def make_grant_statement(table: str, *privileges: str) -> str:
    """Return the SQL that grants `privileges` on `table` to the application's role."""
    return f"GRANT {', '.join(privileges)} ON {table} TO {APPLICATION_ROLE}"
