"""People hear how every deployed flow ends; a webhook that is down costs nobody a run."""

import re
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from prefect import Flow, flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelled, Completed, Crashed

from flows.runtime.notifications import (
    NOTIFICATION_HOOKS,
    WebhookRefusedError,
    notify,
    post,
    tell_end,
)
from serving.settings import get_settings
from tests.fixtures.deployments import DECLARED, load_flow
from tests.fixtures.webhook import Webhook, webhook

__all__ = ["webhook"]

ENDS = ("on_completion", "on_failure", "on_crashed", "on_cancellation")


class SecretInTextError(RuntimeError):
    """An error whose text must not leave the house."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
        "ANONYMIZATION_SALT": "a salt for tests, 256 bit or more of it",
        "AUDIT_SIGNING_KEY": "c2lnbmluZy1rZXktb2YtdGVzdHMtMzItYnl0ZXMhISE=",
        "JWT_SECRET_KEY": "a secret for tests, 256 bit or more of it",
    }.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()


def list_untold(declared: Flow[..., Any]) -> list[str]:
    """Return the ends of a flow that nobody hears of."""
    return [end for end in ENDS if tell_end not in getattr(declared, f"{end}_hooks")]


def make_run(parent: uuid.UUID | None = None) -> FlowRun:
    return FlowRun(
        flow_id=uuid.uuid4(), parent_task_run_id=parent, start_time=datetime.now(UTC), name="a-run"
    )


def test_a_flow_that_tells_nobody_is_found() -> None:
    @flow
    def silent() -> None:
        """Say nothing."""

    assert list_untold(silent) == list(ENDS)
    assert list_untold(silent.with_options(on_failure=[tell_end])) == [
        end for end in ENDS if end != "on_failure"
    ]


@pytest.mark.parametrize("deployment", DECLARED, ids=lambda deployment: deployment["name"])
def test_people_hear_of_the_end_and_of_the_failure_of_every_deployment(
    deployment: dict[str, Any], prefect_server: None, webhook: Webhook
) -> None:
    declared = load_flow(deployment)
    assert list_untold(declared) == []

    # The deployment's own hooks, run by Prefect's engine around work that takes no time.
    def work(fails: bool) -> str:
        if fails:
            raise SecretInTextError("the text of an error")
        return "something was done"

    hooks = {end: getattr(declared, f"{end}_hooks") for end in ENDS}
    stand_in = Flow(work, name=declared.name, **hooks)
    stand_in(fails=False)
    with pytest.raises(SecretInTextError):
        stand_in(fails=True)

    done, failed = webhook.messages
    told = f"MHRAS: flow {declared.name}"
    assert re.match(rf"{told} completed after \d+ s: http", done)
    assert re.match(rf"{told} failed \(SecretInTextError\) after \d+ s: http", failed)
    assert "text of an error" not in failed


@pytest.mark.parametrize(("state", "word"), [(Crashed(), "crashed"), (Cancelled(), "cancelled")])
def test_a_run_that_was_killed_or_called_off_is_told(
    state: State[Any], word: str, webhook: Webhook
) -> None:
    tell_end(Flow(lambda: None, name="training"), make_run(), state)

    (message,) = webhook.messages
    assert message.startswith(f"MHRAS: flow training {word} after ")


@pytest.mark.parametrize("result", [None, [], 0])
def test_a_run_that_found_nothing_to_do_is_not_told(
    result: Any, prefect_server: None, webhook: Webhook
) -> None:
    flow(lambda: result, name="guardrails", **NOTIFICATION_HOOKS)()

    assert webhook.messages == []


def test_a_step_of_another_flow_is_told_once_by_that_flow(
    prefect_server: None, webhook: Webhook
) -> None:
    step = flow(lambda: "done", name="ingestion", **NOTIFICATION_HOOKS)
    flow(lambda: step(), name="pipeline", **NOTIFICATION_HOOKS)()

    (message,) = webhook.messages
    assert message.startswith("MHRAS: flow pipeline completed")


@pytest.mark.parametrize("status", [500, None])
def test_a_webhook_that_is_down_fails_nothing_and_is_logged_without_its_address(
    status: int | None,
    prefect_server: None,
    webhook: Webhook,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if status is None:  # nobody listens there
        monkeypatch.setenv("ALERT_WEBHOOK_URL", "http://127.0.0.1:1/a-secret-path")
        get_settings.cache_clear()
    else:
        webhook.status = status
    monkeypatch.setattr("flows.runtime.notifications.deliver", _without_waiting())

    @flow(name="guardrails", **NOTIFICATION_HOOKS)
    def watch() -> str:
        return "told" if notify("a release was stopped") else "nobody was told"

    assert watch() == "nobody was told"
    assert "notification of the end of this run not delivered: the webhook" in caplog.text
    assert "a-secret-path" not in caplog.text
    assert "/hook" not in caplog.text


def test_what_the_webhook_says_is_an_error_of_ours(webhook: Webhook) -> None:
    webhook.status = 404
    with pytest.raises(WebhookRefusedError, match="answered 404") as caught:
        post("a test")
    assert caught.value.__cause__ is None
    assert webhook.url not in str(caught.value)


def test_without_a_webhook_nothing_is_posted() -> None:
    assert post("a test") is False
    tell_end(Flow(lambda: None, name="drift"), make_run(), Completed(data=1))


def _without_waiting() -> Any:
    from flows.runtime.notifications import deliver

    return deliver.with_options(retries=0)
