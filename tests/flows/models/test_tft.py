from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from flows.datasets.rows import ModelRows
from flows.models import tft
from flows.models.forecast_inputs import CHANNELS, MISSING_FLAGS
from flows.models.forecasting import ForecastingMember
from tests.fixtures.simulated_rows import simulate_fitting_data, simulate_rows


@pytest.fixture(scope="module")
def member() -> ForecastingMember:
    briefly = replace(tft.fit, learning=replace(tft.LEARNING, epochs=1))
    return briefly(simulate_fitting_data(200))


@pytest.fixture(scope="module")
def rows() -> ModelRows:
    return simulate_rows(60, seed=2)[0]


def test_shares_of_channels_and_attention_add_up(member, rows):
    read = tft.interpret(member, rows)
    assert read["channels"].sum() == pytest.approx(1, abs=1e-4)
    assert (read["channels"] >= 0).all()
    assert read["weeks"].shape == (26,)
    assert read["weeks"].sum() == pytest.approx(1, abs=1e-3)


def test_variable_importance_names_every_channel(member, rows, tmp_path):
    figure = tft.draw_variable_importance(member, rows)
    assert isinstance(figure, Figure)
    (axes,) = figure.axes
    drawn = {label.get_text().replace(" ", "_") for label in axes.get_yticklabels()}
    assert drawn >= {*CHANNELS, *MISSING_FLAGS}
    figure.savefig(tmp_path / "importance.png")
    assert (tmp_path / "importance.png").stat().st_size > 5_000


def test_attention_is_drawn_over_the_weeks_before(member, rows, tmp_path):
    figure = tft.draw_attention(member, rows)
    (line,) = figure.axes[0].lines
    assert line.get_xdata().tolist() == list(range(-26, 0))
    assert np.isfinite(line.get_ydata()).all()
    figure.savefig(tmp_path / "attention.png")
    assert (tmp_path / "attention.png").stat().st_size > 5_000
