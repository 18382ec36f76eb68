"""What an interval is measured with: every weighed member fitted again on halves of the people."""

import polars as pl

from flows.evaluation.learning import fit_weighed_halves
from flows.models import logistic_regression
from mlruns_config.heads import Stacker
from tests.fixtures.divided_fits import PlaceFit
from tests.fixtures.simulated_rows import simulate_fitting_data


def fit_halves_with(coefficients: dict[str, float]) -> list:
    data = simulate_fitting_data(300)
    people = pl.Series([f"person-{number // 3}" for number in range(300)])
    families = {"logistic_regression": logistic_regression.fit, "rnn": PlaceFit()}
    members = {name: fit(data) for name, fit in families.items()}
    stacker = Stacker(intercept=0, coefficients=coefficients)
    return fit_weighed_halves(families, "", members, data, people, stacker)


def test_a_weighed_network_is_fitted_on_each_half_of_the_people():
    for halves in fit_halves_with({"logistic_regression": 0.5, "rnn": 0.5}):
        assert halves.first["rnn"] != halves.second["rnn"]


def test_a_network_without_a_weight_is_the_same_in_both_halves():
    for halves in fit_halves_with({"logistic_regression": 1}):
        assert halves.first["rnn"] is halves.second["rnn"]
        assert halves.first["logistic_regression"] != halves.second["logistic_regression"]
