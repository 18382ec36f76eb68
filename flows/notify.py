"""Tells people what a flow did or found, through ALERT_WEBHOOK_URL."""

import httpx
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from serving.settings import get_settings

SECONDS_TO_ANSWER = 10


@task(cache_policy=NO_CACHE, retries=2, retry_delay_seconds=[2, 10])
def notify(message: str) -> bool:
    """Post `message` to the webhook; return False when none is configured.

    The body is Slack's (`{"text": ...}`), which others take too. A message is about releases and
    runs, never about an individual. Raises httpx.HTTPError when the webhook does not take it.
    """
    url = get_settings().alert_webhook_url
    if url is None:
        get_run_logger().warning("no ALERT_WEBHOOK_URL, nobody was told: %s", message)
        return False
    answer = httpx.post(
        url.get_secret_value(), json={"text": f"MHRAS: {message}"}, timeout=SECONDS_TO_ANSWER
    )
    answer.raise_for_status()
    return True
