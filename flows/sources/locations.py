"""Where drops may lie: the folders and object-store prefixes that a site allows.

Anyone who may start a run sets its parameters, so without a list a drop could be any URL
that fsspec opens: an internal web server, for example.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

LOCAL = ("", "file")

#: Prefect stores parameters of runs and shows them to all who may look at runs, so a drop is named
#: by date or number. Its server refuses spaces and other alphabets by this pattern; a person's
#: name in plain letters is no different from any other word.
PLAIN_LOCATION = r"[A-Za-z0-9._~:/=+@-]{1,1024}"
DropLocation = Annotated[str, Field(pattern=f"^{PLAIN_LOCATION}$")]


class DropLocationError(ValueError):
    """A drop outside the allowed locations; the message names these and not the drop."""


def find_import_root(lake_url: str) -> Path:
    """Return the local folder in which bulk-import keeps its exports until they have landed."""
    return find_work_folder(lake_url, "_mhras_bulk")


def find_work_folder(lake_url: str, name: str) -> Path:
    """Return the local folder of a name that belongs to a lake, the same one for every run.

    It lies beside the tables of a local lake, so that pseudonymised rows stay where such rows are
    kept. For a remote lake it lies in this machine's temporary folder, apart from other lakes'.
    """
    if "://" not in lake_url:
        return Path(lake_url) / name
    digest = hashlib.sha256(lake_url.rstrip("/").encode()).hexdigest()
    return Path(tempfile.gettempdir()) / f"{name}_{digest[:16]}"


def split_locations(setting: str) -> list[str]:
    """Return the locations of a comma-separated setting."""
    return [location.strip() for location in setting.split(",") if location.strip()]


def check_location(drop: str, allowed: Sequence[str]) -> None:
    """Raise DropLocationError unless a drop lies in one of the allowed locations.

    A local folder is compared after symbolic links and `..` are resolved; any other URL by scheme,
    host and whole path segments. Chained URLs (`zip::http://...`) are never allowed.
    """
    if not re.fullmatch(PLAIN_LOCATION, drop):
        raise DropLocationError(
            "name drops by date or number: their location may hold plain letters, digits and "
            ". _ ~ : / = + @ - only"
        )
    if "::" in drop or not any(_lies_in(drop, location) for location in allowed):
        raise DropLocationError(
            f"the drop lies outside the allowed locations; DROP_LOCATIONS allows "
            f"{', '.join(allowed) or 'none'}"
        )


def _lies_in(drop: str, location: str) -> bool:
    scheme, path = _split_scheme(drop)
    allowed_scheme, allowed_path = _split_scheme(location)
    if scheme in LOCAL:
        return allowed_scheme in LOCAL and _resolve(path).is_relative_to(_resolve(allowed_path))
    segments, allowed_segments = _split_segments(path), _split_segments(allowed_path)
    if scheme != allowed_scheme or ".." in segments:
        return False
    return segments[: len(allowed_segments)] == allowed_segments


def _split_scheme(url: str) -> tuple[str, str]:
    scheme, separator, path = url.partition("://")
    return (scheme.lower(), path) if separator else ("", url)


def _resolve(path: str) -> Path:
    return Path(os.path.realpath(path))


def _split_segments(path: str) -> list[str]:
    return [segment for segment in path.split("/") if segment]
