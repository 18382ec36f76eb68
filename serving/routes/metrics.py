"""GET /metrics for Prometheus."""

from fastapi import APIRouter, Response

from monitoring.metrics import render_metrics

router = APIRouter(tags=["operation"])


@router.get("/metrics", response_class=Response)
def get_metrics() -> Response:
    body, content_type = render_metrics()
    return Response(body, headers={"Content-Type": content_type})
