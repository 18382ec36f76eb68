"""What a trained release and the rules answer over severities and people."""

from dataclasses import dataclass

import numpy as np
import pytest

from mlruns_config.severity import load_severity_rules
from serving.releases.loading import load_release
from serving.releases.registry import Registry
from serving.scoring.assessment import ExplanationOptions, assess
from serving.scoring.estimate import BandEdges
from serving.scoring.loaded_release import Release
from serving.screening.answers import ScreeningAnswer
from serving.screening.composition import Thresholds, compose_answer
from tests.fixtures.known_people import list_people, make_case, spread
from tests.fixtures.trained_world import TrainedWorld
from tests.fixtures.world_server import world_server

__all__ = ["world_server"]

THRESHOLDS = Thresholds(BandEdges(), 75)
PLAIN = ExplanationOptions(reasons=False, counterfactuals=False)
BANDS = ("low", "moderate", "high", "critical")
PAIRS = 1_000


@pytest.fixture(scope="module")
def release(world_server: str, trained_world: TrainedWorld) -> Release:
    registry = Registry(world_server, None)
    loaded = load_release(registry, trained_world.report.release_version)
    registry.close()
    return loaded


def answer(release: Release, person: dict[str, float], phq9: list[int | None]) -> ScreeningAnswer:
    case = make_case(release.manifest, person, phq9)
    findings = case.apply_rules(release, load_severity_rules())
    return compose_answer("a" * 32, findings, assess(release, case, PLAIN), [], THRESHOLDS)


@dataclass(frozen=True)
class Place:
    """Where an answer puts a person: worse is higher in each."""

    score: float
    band: int
    reviewed: bool

    @classmethod
    def of(cls, found: ScreeningAnswer) -> "Place":
        return cls(found.risk_score, BANDS.index(found.risk_band), found.needs_review)

    def is_below(self, other: "Place") -> bool:
        lost = other.reviewed and not self.reviewed
        return self.score < other.score or self.band < other.band or lost


def test_a_higher_total_never_lowers_anyone(release: Release) -> None:
    for name, person in list_people(release.manifest).items():
        places = [Place.of(answer(release, person, spread(total))) for total in range(25)]
        fallen = [n for n in range(1, 25) if places[n].is_below(places[n - 1])]

        assert fallen == [], name


@pytest.mark.parametrize("total", [20, 22, 24])
def test_severe_symptoms_reach_a_person_of_any_history(release: Release, total: int) -> None:
    for person in list_people(release.manifest).values():
        found = answer(release, person, spread(total))

        assert found.needs_review
        assert found.risk_band in ("high", "critical")


def test_a_marked_rise_reaches_a_person(release: Release) -> None:
    person = list_people(release.manifest)["year mean 7"]

    assert answer(release, person, spread(12)).needs_review
    assert "marked_rise" in [one.code for one in answer(release, person, spread(12)).review_reasons]


def test_a_low_total_of_a_person_who_is_well_stays_low(release: Release) -> None:
    person = list_people(release.manifest)["year mean 1"]

    assert answer(release, person, spread(1)).risk_band == "low"


def test_no_single_worse_answer_lowers_anyone(release: Release) -> None:
    random = np.random.default_rng(11)
    people = list(list_people(release.manifest).values())
    for _ in range(PAIRS):
        person = people[random.integers(len(people))]
        better = random.integers(0, 4, 9)
        item = random.choice(np.flatnonzero(better < 3)) if (better < 3).any() else 0
        worse = better.copy()
        worse[item] = min(3, worse[item] + 1)
        before = Place.of(answer(release, person, better.tolist()))
        after = Place.of(answer(release, person, worse.tolist()))

        assert not after.is_below(before), (better, item)
