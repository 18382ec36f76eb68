"""Outcomes say whether a release still does what it did, and nothing where there are too few."""

import numpy as np
import polars as pl
import pytest

from flows.evaluation.outcome_drift import describe_outcomes, measure_groups, measure_outcomes
from monitoring.outcome_drift import MIN_LABELS, MIN_OUTCOMES
from serving.predictions.drift_records import LabelledSample

ROWS = 1500
#: Enough to see who is screened, too few to judge a release by.
FEW = 150
AT_TRAINING = {"auroc": 0.75, "auroc_interval_low": 0.72}
NOBODY = pl.DataFrame(schema={"anonymized_id": pl.String, "age": pl.Float64})


def draw_sample(rows: int = ROWS, times: float = 1, tells_apart: bool = True) -> LabelledSample:
    """Return screenings whose outcomes are `times` as frequent as their probabilities say."""
    random = np.random.default_rng(5)
    probabilities = random.beta(1, 4, rows)
    chances = probabilities if tells_apart else np.full(rows, probabilities.mean())
    deteriorated = random.random(rows) < np.minimum(chances * times, 1)
    people = [f"{one:032x}" for one in range(rows)]
    ages = random.uniform(18, 80, rows)
    return LabelledSample(people, ages.tolist(), probabilities.tolist(), deteriorated.tolist())


def make_people(sample: LabelledSample, women: float = 0.5) -> pl.DataFrame:
    count = round(len(sample.individuals) * women)
    sexes = ["female"] * count + ["male"] * (len(sample.individuals) - count)
    return pl.DataFrame({"anonymized_id": sample.individuals, "sex": sexes}).with_columns(
        ethnicity=pl.lit(None, dtype=pl.String)
    )


def make_screened(sample: LabelledSample) -> pl.DataFrame:
    return pl.DataFrame({"anonymized_id": sample.individuals, "age": sample.ages})


@pytest.mark.parametrize("rows", [0, 1, MIN_LABELS - 1])
def test_of_too_few_labels_nothing_is_said_and_why(rows):
    found = measure_outcomes(draw_sample(rows), AT_TRAINING)

    assert found.performance is None
    assert found.discrimination_drifted is found.calibration_drifted is None
    assert not found.has_drifted
    assert "too few" in found.describe()
    assert found.to_dict()["is_known"] is False


def test_of_too_few_outcomes_nothing_is_said_either():
    sample = draw_sample(1000)
    rare = [n < MIN_OUTCOMES - 1 for n in range(1000)]
    found = measure_outcomes(
        LabelledSample(sample.individuals, sample.ages, sample.probabilities, rare), AT_TRAINING
    )

    assert found.performance is None


def test_a_release_that_does_what_it_did_has_not_drifted():
    found = measure_outcomes(draw_sample(), AT_TRAINING)

    assert found.performance is not None
    assert found.performance.ratio == pytest.approx(1, abs=0.1)
    assert (found.discrimination_drifted, found.calibration_drifted) == (False, False)


@pytest.mark.parametrize("times", [0.5, 2])
def test_more_or_fewer_outcomes_than_expected_are_calibration_drift(times):
    found = measure_outcomes(draw_sample(times=times), AT_TRAINING)

    assert found.calibration_drifted
    assert found.performance.ratio == pytest.approx(times, rel=0.2)


def test_a_release_that_tells_nobody_apart_any_more_is_discrimination_drift():
    found = measure_outcomes(draw_sample(tells_apart=False), AT_TRAINING)

    assert found.discrimination_drifted
    assert not found.calibration_drifted


def test_without_figures_of_the_training_discrimination_is_not_judged():
    found = measure_outcomes(draw_sample(tells_apart=False), {})

    assert found.performance is not None
    assert found.discrimination_drifted is None


def test_rows_of_one_individual_do_not_count_as_many():
    sample = draw_sample(600)
    wide = measure_outcomes(sample, AT_TRAINING).performance
    repeated = LabelledSample(*(list(part) * 5 for part in vars(sample).values()))
    again = measure_outcomes(repeated, AT_TRAINING).performance

    assert again.auroc_high - again.auroc_low == pytest.approx(
        wide.auroc_high - wide.auroc_low, rel=0.3
    )


def test_a_group_that_grew_has_drifted_and_one_that_did_not_has_not():
    sample = draw_sample(FEW)
    then = {"sex": {"female": 0.5, "male": 0.5}}
    groups = measure_groups(make_screened(sample), sample, make_people(sample, 0.7), then)
    by_name = {(one.attribute, one.group): one for one in groups}

    assert by_name["sex", "female"].mix_drifted
    assert by_name["sex", "female"].share == pytest.approx(0.7)
    assert not by_name["age_band", "under 30"].mix_drifted  # not known at training
    same = measure_groups(make_screened(sample), sample, make_people(sample), then)
    assert not any(one.mix_drifted for one in same)


def test_a_group_that_is_gone_is_still_listed():
    sample = draw_sample(FEW)
    then = {"sex": {"female": 0.4, "male": 0.4, "other": 0.2}}
    groups = measure_groups(make_screened(sample), sample, make_people(sample), then)
    (other,) = (one for one in groups if one.group == "other")

    assert (other.share, other.labels, other.mix_drifted) == (0, 0, True)


def test_a_release_that_misjudges_one_group_shows_there():
    sample = draw_sample()
    people = make_people(sample)
    women = (people["sex"] == "female").to_list()
    wrong = [
        happened or (is_woman and n % 4 == 0)
        for n, (happened, is_woman) in enumerate(zip(sample.occurred, women, strict=True))
    ]
    changed = LabelledSample(sample.individuals, sample.ages, sample.probabilities, wrong)
    groups = measure_groups(make_screened(sample), changed, people, {})
    drifted = {one.group: one.calibration_drifted for one in groups if one.attribute == "sex"}

    assert drifted == {"female": True, "male": False}


def test_a_report_without_labels_can_be_read():
    found = measure_outcomes(LabelledSample([], [], [], []), {})
    groups = measure_groups(NOBODY, LabelledSample([], [], [], []), make_people(draw_sample(9)), {})

    assert "too few" in describe_outcomes(found, groups)
