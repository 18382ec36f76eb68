"""What a trained release and the rules answer over severities and people."""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
from scipy.stats import spearmanr

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

THRESHOLDS = Thresholds(BandEdges(), 75)
PLAIN = ExplanationOptions(reasons=False, counterfactuals=False)
BANDS = ("low", "moderate", "high", "critical")
PAIRS = 1_000
MANY_PAIRS = 20_000


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


@pytest.mark.parametrize("pairs", [PAIRS, pytest.param(MANY_PAIRS, marks=pytest.mark.nightly)])
def test_no_single_worse_answer_lowers_anyone(release: Release, pairs: int) -> None:
    random = np.random.default_rng(pairs)
    people = list(list_people(release.manifest).values())
    for _ in range(pairs):
        person = people[random.integers(len(people))]
        better = random.integers(0, 4, 9)
        item = random.choice(np.flatnonzero(better < 3)) if (better < 3).any() else 0
        worse = better.copy()
        worse[item] = min(3, worse[item] + 1)
        before = Place.of(answer(release, person, better.tolist()))
        after = Place.of(answer(release, person, worse.tolist()))

        assert not after.is_below(before), (better, item)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["unknown", "year mean 1", "year mean 14"])
def test_of_all_answer_vectors_none_is_below_one_with_a_better_answer(
    release: Release, name: str
) -> None:
    person = list_people(release.manifest)[name]
    placed = [Place.of(answer(release, person, list(v))) for v in product(range(4), repeat=9)]
    shape = (4,) * 9
    scores = np.array([place.score for place in placed]).reshape(shape)
    bands = np.array([place.band for place in placed]).reshape(shape)
    reviewed = np.array([place.reviewed for place in placed], int).reshape(shape)

    for item in range(9):
        for values in (scores, bands, reviewed):
            assert (np.diff(values, axis=item) >= 0).all(), item


def test_each_outcome_has_its_own_probability_and_words(release: Release) -> None:
    person = list_people(release.manifest)["year mean 7"]
    first, beside = answer(release, person, spread(9)).outcomes

    assert (first.outcome, beside.outcome) == ("adverse_course_v1", "worsening_v1")
    assert first.text.startswith(f"{first.probability:.0%} chance of PHQ-9 of 15 or more")
    assert beside.text.startswith(f"{beside.probability:.0%} chance of a further marked rise")
    assert first.interval.low <= first.probability <= first.interval.high
    assert beside.interval.low <= beside.probability <= beside.interval.high


def test_of_the_severely_ill_severity_itself_is_the_message(release: Release) -> None:
    person = list_people(release.manifest)["year mean 14"]

    assert "severity itself is the message" in answer(release, person, spread(22)).outcomes[1].text
    assert "severity" not in answer(release, person, spread(19)).outcomes[1].text


def test_who_is_likely_to_worsen_reaches_a_person(release: Release) -> None:
    head = release.manifest.worsening
    lower = head.model_copy(update={"likely_above": 0.01})
    watchful = replace(release, manifest=release.manifest.model_copy(update={"worsening": lower}))
    person = list_people(release.manifest)["year mean 7"]
    codes = [reason.code for reason in answer(watchful, person, spread(9)).review_reasons]

    assert "likely_to_worsen" in codes
    assert "likely_to_worsen" not in [
        reason.code for reason in answer(watchful, person, spread(22)).review_reasons
    ]


def test_data_of_another_population_go_to_a_person_as_unfamiliar(release: Release) -> None:
    days = list_people(release.manifest)["wearables only"]
    others = {name: 20 * value + 1000 for name, value in days.items()}
    found = answer(release, others, spread(3))

    assert found.confidence == 0
    assert [reason.text for reason in found.review_reasons if "unlike" in reason.text]
    assert not [r for r in answer(release, days, spread(3)).review_reasons if "unlike" in r.text]


def test_confidence_is_no_function_of_the_probability_alone(release: Release) -> None:
    found = [
        answer(release, person, spread(total))
        for person in list_people(release.manifest).values()
        for total in range(20)
    ]
    ranks = spearmanr([one.confidence for one in found], [one.probability for one in found])

    assert abs(ranks.statistic) < 0.8
