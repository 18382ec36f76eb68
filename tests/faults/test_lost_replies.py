"""The commit is done and its reply is lost: the screening is answered once, or found again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.screening.recorder import WRITE_AND_LOOK_BACK
from tests.fixtures.api import mlflow_url, production_version, releases
from tests.fixtures.attack_load import check_books, keep_screening, verify_chain
from tests.fixtures.attacked_stack import AttackedStack, run_attacked_stack, wait_until
from tests.fixtures.lossy_proxy import run_lossy_proxy

__all__ = ["mlflow_url", "production_version", "releases"]

pytestmark = pytest.mark.nightly

LOST_REPLIES = 200


@pytest.fixture
def stack(tmp_path: Path, mlflow_url: str, production_version: int) -> Iterator[AttackedStack]:
    with run_attacked_stack(tmp_path, mlflow_url) as stack:
        yield stack


def test_a_lost_reply_loses_and_doubles_nothing(
    stack: AttackedStack, capsys: pytest.CaptureFixture[str]
) -> None:
    stack.stop_api()
    statement = f"EXECUTE {WRITE_AND_LOOK_BACK.name}"
    with run_lossy_proxy(stack.postgres.port, statement) as proxy:
        stack.database_port = proxy.port
        stack.start_api()
        proxy.share = 0.5  # so that a second reply in a row is lost too
        with keep_screening(stack.url, stack.grant(50_000)) as load:
            wait_until(lambda: proxy.lost >= LOST_REPLIES, "too few replies were lost")
            proxy.share = 0.0
            done = len(load.acknowledged)
            wait_until(lambda: len(load.acknowledged) > done + 10, "no screening is answered")
        counts = check_books(stack.owner, load)
        found = verify_chain(stack.url)
        stack.stop_api()
    with capsys.disabled():
        print(f"\n{proxy.lost} replies lost: {load.count()}, {counts}")  # noqa: T201

    assert found["intact"], found["findings"]
    assert counts["acknowledged"] > LOST_REPLIES / 2
