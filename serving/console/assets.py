"""The console's style sheets and pictures, served from the package: nothing from elsewhere.

`nhsuk-frontend.css` is written by `python -m tests.serving.console.vendor_assets`.
"""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

from serving.errors import NotFoundError

router = APIRouter(include_in_schema=False)

STATIC = Path(__file__).parent / "static"
TYPES = {".css": "text/css", ".svg": "image/svg+xml"}
#: They change with the version of MHRAS alone, and hold nothing about anyone.
CACHED = {"Cache-Control": "public, max-age=86400"}


@router.get("/console/static/{name:path}")
def get_asset(name: str) -> FileResponse:
    """Return a file of the package; raises NotFoundError for any other name."""
    if name not in list_assets():
        raise NotFoundError("there is no such file")
    path = STATIC / name
    return FileResponse(path, media_type=TYPES[path.suffix], headers=CACHED)


def list_assets() -> set[str]:
    files = (path for path in STATIC.rglob("*") if path.suffix in TYPES)
    return {path.relative_to(STATIC).as_posix() for path in files}
