import pytest

GUIDE_METRICS = {
    "mhras_http_requests_total": "counter",
    "mhras_http_request_duration_seconds": "histogram",
    "mhras_screenings_total": "counter",
    "mhras_risk_scores": "histogram",
    "mhras_alerts_triggered_total": "counter",
    "mhras_human_reviews_queued_total": "counter",
    "mhras_model_inference_duration_seconds": "histogram",
    "mhras_drift_score": "gauge",
    "mhras_consent_verifications_total": "counter",
    "mhras_consent_failures_total": "counter",
}


@pytest.mark.parametrize(("name", "kind"), GUIDE_METRICS.items())
def test_every_metric_of_the_guide_is_exposed_with_its_type(client, name, kind):
    assert f"# TYPE {name} {kind}\n" in client.get("/metrics").text
