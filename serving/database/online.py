"""Changes of a large table while it is used: never a rewrite under an exclusive lock."""

from collections.abc import Sequence
from contextlib import nullcontext

from alembic import op
from sqlalchemy import text

#: Rows of one statement; each is its own transaction, so no other statement waits for it.
BATCH = 5_000
#: How long a short change of the table waits for its lock, while others queue behind it.
LOCK_TIMEOUT = "5s"
SUFFIX = "_changed"


def change_column_types(table: str, columns: Sequence[str], kind: str) -> None:
    """Give `columns` of `table` (primary key `id`, none of them null) another type.

    New columns are filled beside the old ones in batches, by a trigger for rows that come
    meanwhile, and take their place in a moment. Cut off, it can be begun again.
    """
    context = op.get_context()
    # Without a connection (SQL printed only) there is no transaction to leave.
    with nullcontext() if context.as_sql else context.autocommit_block():
        op.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
        _add_columns(table, columns, kind)
        _fill(table, columns, kind)
        _check_filled(table, columns)
        op.execute("RESET lock_timeout")
    op.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
    _exchange(table, columns)


def _add_columns(table: str, columns: Sequence[str], kind: str) -> None:
    added = ", ".join(f"ADD COLUMN IF NOT EXISTS {column}{SUFFIX} {kind}" for column in columns)
    op.execute(f"ALTER TABLE {table} {added}")
    copied = " ".join(f"NEW.{column}{SUFFIX} := NEW.{column}::{kind};" for column in columns)
    op.execute(
        f"CREATE OR REPLACE FUNCTION {table}{SUFFIX}() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN {copied} RETURN NEW; END $$"
    )
    op.execute(f"DROP TRIGGER IF EXISTS {table}{SUFFIX} ON {table}")
    op.execute(
        f"CREATE TRIGGER {table}{SUFFIX} BEFORE INSERT OR UPDATE ON {table}"
        f" FOR EACH ROW EXECUTE FUNCTION {table}{SUFFIX}()"
    )


def _fill(table: str, columns: Sequence[str], kind: str) -> None:
    """Fill in what was there before, in the order of the key."""
    filled = ", ".join(f"{column}{SUFFIX} = {column}::{kind}" for column in columns)
    connection, last = op.get_bind(), None
    while True:
        ids = connection.execute(
            text(
                f"SELECT id FROM {table} WHERE :last IS NULL OR id > CAST(:last AS uuid)"
                " ORDER BY id LIMIT :batch"
            ),
            {"last": last, "batch": BATCH},
        ).scalars()
        batch = [str(row_id) for row_id in ids]
        if not batch:
            return
        connection.execute(
            text(f"UPDATE {table} SET {filled} WHERE id = ANY(CAST(:batch AS uuid[]))"),
            {"batch": batch},
        )
        last = batch[-1]


def _check_filled(table: str, columns: Sequence[str]) -> None:
    """Prove that none is null, reading alone: SET NOT NULL then needs no look at the rows."""
    whole = " AND ".join(f"{column}{SUFFIX} IS NOT NULL" for column in columns)
    op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {table}{SUFFIX}")
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {table}{SUFFIX} CHECK ({whole}) NOT VALID")
    op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {table}{SUFFIX}")


def _exchange(table: str, columns: Sequence[str]) -> None:
    """Replace the old columns by the new ones; the time does not depend on the table's size."""
    op.execute(f"DROP TRIGGER {table}{SUFFIX} ON {table}")
    op.execute(f"DROP FUNCTION {table}{SUFFIX}()")
    for column in columns:
        op.execute(f"ALTER TABLE {table} ALTER {column}{SUFFIX} SET NOT NULL")
    op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}{SUFFIX}")
    for column in columns:
        op.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        op.execute(f"ALTER TABLE {table} RENAME COLUMN {column}{SUFFIX} TO {column}")
