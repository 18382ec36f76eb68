"""Alembic's entry point: runs the revisions on the connection that `migrate` hands over."""

from alembic import context

from mlruns_config.data_origin import data_origins
from serving.database.tables import Base


def run_migrations() -> None:
    """Run on the given connection: it holds the lock that keeps two migrations apart."""
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=[Base.metadata, data_origins.metadata],
        compare_type=True,
        compare_server_default=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


run_migrations()
