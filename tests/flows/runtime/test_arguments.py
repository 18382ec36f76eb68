"""What Prefect does with an argument that is passed whole."""

from dataclasses import dataclass, field
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.runtime.arguments import pass_whole


class Watched(list[int]):
    """A list that counts how often it is gone through."""

    searches = 0

    def __iter__(self) -> Any:
        type(self).searches += 1
        return super().__iter__()


@dataclass(frozen=True)
class Sample:
    values: Watched = field(default_factory=lambda: Watched([1, 2, 3]))


@task(cache_policy=NO_CACHE)
def describe(sample: Sample, times: int) -> tuple[type, list[int]]:
    return type(sample), [times * sample.values[at] for at in range(3)]


def test_a_task_receives_an_argument_passed_whole_as_it_is(prefect_server):
    @flow
    def run() -> tuple[type, list[int]]:
        return describe(pass_whole(Sample()), times=2)

    assert run() == (Sample, [2, 4, 6])


def test_prefect_does_not_go_through_an_argument_passed_whole(prefect_server, monkeypatch):
    monkeypatch.setattr(Watched, "searches", 0)

    @flow
    def run(whole: bool) -> int:
        sample = Sample()
        describe(pass_whole(sample) if whole else sample, times=1)
        return Watched.searches

    assert run(whole=True) == 0
    assert run(whole=False) > 0
