"""The entity, and where its feature tables lie.

Every feature view is read from a Delta table `{LAKE_URL}/features/<view>` with one row per
(anonymized_id, event_timestamp, created_timestamp): what was known at the start of a day,
and since when it was known.
"""

import os
from pathlib import Path

from feast import Entity, FileSource, ValueType
from feast.data_format import DeltaFormat

from feature_repo.stored_views import JOIN_KEY

EVENT_TIMESTAMP = "event_timestamp"
CREATED_TIMESTAMP = "created_timestamp"

individual = Entity(
    name="individual",
    join_keys=[JOIN_KEY],
    value_type=ValueType.STRING,
    description="A consenting person, by pseudonym.",
)


def locate_feature_table(view: str, lake_url: str | None = None) -> str:
    """Return the path or URL of a view's Delta table, absolute where it is a path.

    `lake_url` is the lake it belongs to; None: LAKE_URL.
    """
    lake = lake_url or os.environ.get("LAKE_URL", ".mhras/lake")
    root = lake.rstrip("/") if "://" in lake else str(Path(lake).resolve())
    return f"{root}/features/{view}"


def make_feature_source(view: str) -> FileSource:
    """Return the Feast source of a view's Delta table."""
    return FileSource(
        name=f"{view}_table",
        path=locate_feature_table(view),
        file_format=DeltaFormat(),
        timestamp_field=EVENT_TIMESTAMP,
        created_timestamp_column=CREATED_TIMESTAMP,
    )
