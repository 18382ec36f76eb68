"""Alembic environment and revisions of the MHRAS database."""
