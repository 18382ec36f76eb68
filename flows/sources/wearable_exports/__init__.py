"""Exports of wearables as files: which reader a file of a drop belongs to."""

from collections.abc import Iterator

from flows.sources.batch import Batch
from flows.sources.pseudonymise import PersonKey


def find_reader(path: str) -> str | None:
    """Return the name of the export's reader, None for a file of another kind."""
    return None


def read_export(file: object, key: PersonKey) -> Iterator[Batch]:
    yield from ()
