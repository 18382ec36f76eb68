"""Where the feature tables lie, and what their columns of time are called.

Every feature view is read from a Delta table `{LAKE_URL}/features/<view>` with one row per
(anonymized_id, event_timestamp, created_timestamp): what was known at the start of a day,
and since when it was known.
"""

import os
from pathlib import Path

EVENT_TIMESTAMP = "event_timestamp"
CREATED_TIMESTAMP = "created_timestamp"


def locate_feature_table(view: str, lake_url: str | None = None) -> str:
    """Return the path or URL of a view's Delta table, absolute where it is a path.

    `lake_url` is the lake it belongs to; None: LAKE_URL.
    """
    lake = lake_url or os.environ.get("LAKE_URL", ".mhras/lake")
    root = lake.rstrip("/") if "://" in lake else str(Path(lake).resolve())
    return f"{root}/features/{view}"
