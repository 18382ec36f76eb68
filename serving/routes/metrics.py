"""GET /metrics for Prometheus."""

from fastapi import APIRouter, Response

from monitoring.metrics import render_metrics
from serving.dependencies import WorkerServices

router = APIRouter(tags=["operation"])


@router.get("/metrics", response_class=Response)
def get_metrics(services: WorkerServices) -> Response:
    services.accountability.queue_metrics.refresh()
    body, content_type = render_metrics()
    return Response(body, headers={"Content-Type": content_type})
