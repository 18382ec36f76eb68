"""Notifications through ALERT_WEBHOOK_URL: how flows end and what they decide.

Every deployed flow is declared with `**NOTIFICATION_HOOKS`. An unreachable webhook is logged
and fails no flow: the work of the flow is done either way.
"""

from datetime import UTC, datetime
from typing import Any

import httpx
from prefect import Flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging.loggers import flow_run_logger
from prefect.utilities.urls import url_for

from flows.runtime.retries import IO_RETRIES
from serving.settings import get_settings

SECONDS_TO_ANSWER = 10


class WebhookRefusedError(RuntimeError):
    """The webhook refused a message; the reason leaves out its address, which is a secret."""


def notify(message: str) -> bool:
    """Send `message` to people from within a flow; return True if it was delivered.

    A message is about releases and runs, never about an individual. A webhook that does not take
    it is asked again twice, then it is logged.
    """
    try:
        return deliver(message)
    except WebhookRefusedError as error:
        get_run_logger().error("notification %r not delivered: %s", message, error)
        return False


@task(cache_policy=NO_CACHE, task_run_name="notify", **IO_RETRIES)
def deliver(message: str) -> bool:
    """Post to the webhook; raises WebhookRefusedError."""
    posted = post(message)
    if not posted:
        get_run_logger().warning("no ALERT_WEBHOOK_URL, notification not sent: %s", message)
    return posted


def post(message: str) -> bool:
    """Post `message` once; return False where no webhook is configured.

    The body is Slack's (`{"text": ...}`), which others take too. Raises WebhookRefusedError.
    """
    url = get_settings().alert_webhook_url
    if url is None:
        return False
    body = {"text": f"MHRAS: {message}"}
    try:
        answer = httpx.post(url.get_secret_value(), json=body, timeout=SECONDS_TO_ANSWER)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise WebhookRefusedError(f"the webhook is away: {type(error).__name__}") from None
    if not answer.is_success:
        raise WebhookRefusedError(f"the webhook answered {answer.status_code}")
    return True


def tell_end(flow: Flow[..., Any], run: FlowRun, state: State[Any]) -> None:
    """Tell how a run ended, by link: errors may quote what must not leave the house.

    Steps of another flow are not told, it is; nor is a run that found nothing to do (its result
    is empty): the guardrails look every five minutes.
    """
    logger = flow_run_logger(run, flow)
    if run.parent_task_run_id is not None or _did_nothing(state):
        return
    try:
        if not post(describe_end(flow.name, run, state)):
            logger.debug("no ALERT_WEBHOOK_URL, no notification of the end of this run")
    except WebhookRefusedError as error:
        logger.error("notification of the end of this run not delivered: %s", error)


def describe_end(flow_name: str, run: FlowRun, state: State[Any]) -> str:
    """Return one sentence: which flow, how it ended, after how long, where to look."""
    ended = str(state.name or state.type.value).lower()
    cause = _name_cause(state)
    lasted = f" after {_measure_seconds(run):.0f} s" if run.start_time else ""
    return f"flow {flow_name} {ended}{cause}{lasted}: {url_for('flow-run', run.id) or run.name}"


def _name_cause(state: State[Any]) -> str:
    if not state.is_failed():
        return ""
    error = state.result(raise_on_failure=False)
    return f" ({type(error).__name__})" if isinstance(error, Exception) else ""


def _measure_seconds(run: FlowRun) -> float:
    assert run.start_time is not None
    return (datetime.now(UTC) - run.start_time).total_seconds()


def _did_nothing(state: State[Any]) -> bool:
    return state.is_completed() and not state.result(raise_on_failure=False)


#: Hooks of every deployed flow, which notify people of the end of its runs.
NOTIFICATION_HOOKS: dict[str, Any] = {
    "on_completion": [tell_end],
    "on_failure": [tell_end],
    "on_crashed": [tell_end],
    "on_cancellation": [tell_end],
}
