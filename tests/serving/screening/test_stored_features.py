"""Screenings that ask for features at the same time share reads, deadlines and nothing else."""

import asyncio
import threading
from collections.abc import Sequence
from datetime import timedelta

import pytest

from feature_repo.online_store import FeatureStoreUnavailableError
from feature_repo.stored_views import StoredRow, StoredView
from serving.database.gathering import CONCURRENT_READS, READS_UNDER_WAY
from serving.screening.stored_features import FeatureGateway

VIEWS = [StoredView("survey_history", timedelta(days=365), ())]
OTHER_VIEWS = [StoredView("demographics", None, ())]
PEOPLE = [f"{n:032x}" for n in range(12)]


class GatedStore:
    """A store that answers once it is let to, and remembers what it was asked."""

    def __init__(self, is_up: bool = True) -> None:
        self.gate = threading.Event()
        self.asked: list[tuple[list[StoredView], list[str]]] = []
        self._is_up = is_up

    def fetch(
        self, views: Sequence[StoredView], individuals: Sequence[str]
    ) -> dict[str, StoredRow]:
        self.asked.append((list(views), list(individuals)))
        self.gate.wait(10)
        if not self._is_up:
            raise FeatureStoreUnavailableError("switched off by a test")
        return {one: StoredRow(values={"who": one}) for one in individuals}

    def close(self) -> None:
        self.gate.set()


def run_together(store, people, views=VIEWS, deadline=5.0, opens=True):
    async def ask():
        gateway = FeatureGateway(store, deadline)
        asked = [asyncio.create_task(gateway.fetch(views, [one])) for one in people]
        await asyncio.sleep(0.05)
        if opens:
            store.gate.set()
        try:
            return await asyncio.gather(*asked), gateway.is_away
        finally:
            gateway.close()

    return asyncio.run(ask())


def test_a_store_that_fails_fails_everybody_who_shared_the_read():
    found, is_away = run_together(GatedStore(is_up=False), PEOPLE)
    assert found == [None] * len(PEOPLE)
    assert is_away


def test_a_store_that_hangs_is_given_up_by_everybody():
    found, is_away = run_together(GatedStore(), PEOPLE, deadline=0.1, opens=False)
    assert found == [None] * len(PEOPLE)
    assert is_away


def test_an_error_nobody_foresaw_reaches_everybody_who_shared_the_read():
    store = GatedStore()
    store.fetch = lambda _views, _people: 1 / 0
    with pytest.raises(ZeroDivisionError):
        run_together(store, PEOPLE)


def test_a_read_that_hangs_does_not_keep_others_from_reading_later():
    store = GatedStore()

    async def ask():
        gateway = FeatureGateway(store, 0.1)
        lost = await asyncio.gather(*(gateway.fetch(VIEWS, [one]) for one in PEOPLE))
        store.gate.set()
        found = await gateway.fetch(VIEWS, PEOPLE[:1])
        gateway.close()
        return lost, found

    lost, found = asyncio.run(ask())
    assert lost == [None] * len(PEOPLE)
    assert found == {PEOPLE[0]: StoredRow(values={"who": PEOPLE[0]})}


def test_those_who_ask_meanwhile_share_one_read_and_each_gets_its_own_rows():
    store = GatedStore()
    found, is_away = run_together(store, PEOPLE)
    assert found == [{one: StoredRow(values={"who": one})} for one in PEOPLE]
    assert not is_away
    assert len(store.asked) == READS_UNDER_WAY + 1 < CONCURRENT_READS
    assert sorted(one for _, people in store.asked for one in people) == PEOPLE


def test_different_views_are_never_read_together():
    store = GatedStore()

    async def ask():
        gateway = FeatureGateway(store, 5)
        views = [VIEWS, OTHER_VIEWS] * 6
        asked = [
            asyncio.create_task(gateway.fetch(view, [one]))
            for view, one in zip(views, PEOPLE, strict=True)
        ]
        await asyncio.sleep(0.05)
        store.gate.set()
        await asyncio.gather(*asked)
        gateway.close()

    asyncio.run(ask())
    told = {one: views for views, people in store.asked for one in people}
    assert all(told[one] == [VIEWS, OTHER_VIEWS][n % 2] for n, one in enumerate(PEOPLE))
    assert len(told) == len(PEOPLE)
