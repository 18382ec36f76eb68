"""The entity of every feature view, and the Feast source of a view's table."""

from feature_repo.feast_library import DeltaFormat, Entity, FileSource, ValueType
from feature_repo.feature_tables import CREATED_TIMESTAMP, EVENT_TIMESTAMP, locate_feature_table
from feature_repo.stored_views import JOIN_KEY

individual = Entity(
    name="individual",
    join_keys=[JOIN_KEY],
    value_type=ValueType.STRING,
    description="A consenting person, by pseudonym.",
)


def make_feature_source(view: str) -> FileSource:
    """Return the Feast source of a view's Delta table."""
    return FileSource(
        name=f"{view}_table",
        path=locate_feature_table(view),
        file_format=DeltaFormat(),
        timestamp_field=EVENT_TIMESTAMP,
        created_timestamp_column=CREATED_TIMESTAMP,
    )
