"""Where exports of wearables lie in a drop: below `wearable_exports/<person_id>/`."""

import re

FOLDER = "wearable_exports"
#: `wearable_exports/<person_id>/…/file`; a RADAR-base export has `radar` for the person.
PLACE = re.compile(rf"(?:^|/){FOLDER}/([^/]+)/(?:.*/)?([^/]+)$")

READERS = (
    (re.compile(r"export\.(?:xml|zip)", re.IGNORECASE), "apple"),
    (re.compile(r".*\.csv(?:\.gz)?", re.IGNORECASE), "csv"),
    (re.compile(r".*\.json(?:\.gz)?", re.IGNORECASE), "json"),
)


def find_reader(path: str) -> str | None:
    """Return the reader of a file that lies where exports do, None for any other file."""
    place = PLACE.search(path)
    if place is None:
        return None
    return next((name for pattern, name in READERS if pattern.fullmatch(place[2])), None)


def find_owner(url: str) -> str:
    """Return the person_id that an export lies under."""
    place = PLACE.search(url)
    return place[1] if place else ""
