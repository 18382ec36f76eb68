"""GET /docs: the API's own page, with everything it loads served from here."""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse, HTMLResponse

from serving.http.middleware import DOCUMENTATION_POLICY

router = APIRouter(include_in_schema=False)

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>MHRAS: API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css"></head>
<body><div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script><script src="/docs/start.js"></script>
</body></html>
"""
START = """SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true,
  persistAuthorization: false, validatorUrl: null,
});
"""


@router.get("/docs")
def get_page() -> HTMLResponse:
    return HTMLResponse(PAGE, headers={"Content-Security-Policy": DOCUMENTATION_POLICY})


@router.get("/docs/start.js")
def get_start() -> Response:
    return Response(START, media_type="text/javascript")


@router.get("/docs/{name}")
def get_asset(name: Literal["swagger-ui.css", "swagger-ui-bundle.js"]) -> FileResponse:
    return FileResponse(find_assets() / name)


def find_assets() -> Path:
    """Return the folder of Swagger UI in the package that ships it; it is not imported.

    Raises FileNotFoundError.
    """
    spec = find_spec("fastapi_offline")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("fastapi-offline is not installed")
    return Path(spec.origin).parent / "static"
