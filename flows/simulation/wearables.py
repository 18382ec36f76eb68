"""Wearable days: they lean on the severity and grow irregular before symptoms are reported."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from flows.simulation.latent import BLOCK_SIZE, Block, Floats, expit

WEARER_SHARE = 0.65


def simulate_wearable_days(block: Block) -> pl.DataFrame:
    """Draw worn days: levels and spreads as in LifeSnaps (Yfantidou et al. 2022)."""
    rng = block.rng
    wearer = rng.random(BLOCK_SIZE) < WEARER_SHARE
    severity = np.repeat(block.severity, 7, axis=1)[:, : block.days]
    prodrome = np.repeat(block.prodrome, 7, axis=1)[:, : block.days]
    worn_chance = expit(1.3 - 0.35 * severity + rng.normal(0, 0.8, (BLOCK_SIZE, 1)))
    worn = wearer[:, None] & (rng.random(severity.shape) < worn_chance)
    person, day = np.nonzero(worn)
    state = _WearableState(rng, block, person, severity[worn], prodrome[worn])
    weekend = (day + block.start.weekday()) % 7 >= 5
    columns = {
        "steps": state.draw(8200, 2600, -0.28, 0.45, floor=200) * np.where(weekend, 0.9, 1.0),
        "active_minutes": state.draw(190, 60, -0.25, 0.6, floor=0),
        "sleep_minutes": state.draw(405, 38, -0.05, 1.35, floor=60, ceiling=840),
        "sleep_efficiency": state.draw(92.5, 2.4, -0.3, 1.1, floor=45, ceiling=100),
        "resting_heart_rate": state.draw(66, 6.5, 0.12, 0.25, floor=38, ceiling=110),
        "hrv_rmssd": state.draw(40, 14, -0.16, 0.45, floor=6, ceiling=160),
        "wear_minutes": state.draw(1180, 120, -0.1, 1.0, floor=300, ceiling=1440),
    }
    frame = pl.DataFrame(
        {
            "person_id": block.person_ids(person),
            "date": pl.Series(np.datetime64(block.start) + day).cast(pl.Date),
        }
        | {name: np.round(values, 1).astype(np.float32) for name, values in columns.items()}
    )
    return _lose_readings(rng, frame)


@dataclass(frozen=True)
class _WearableState:
    """Draws one channel for every worn day of a block."""

    rng: np.random.Generator
    block: Block
    person: NDArray[np.int64]
    severity: Floats
    prodrome: Floats

    def draw(
        self,
        mean: float,
        spread: float,
        effect: float,
        noise: float,
        floor: float,
        ceiling: float = np.inf,
    ) -> Floats:
        """`effect` and `noise` in units of `spread`, the spread between individuals.

        An episode that builds up also makes days more irregular, which is what windows of
        standard deviations can see before a total score does.
        """
        usual = self.rng.normal(mean, spread, BLOCK_SIZE)[self.person]
        sway = spread * effect * (self.severity + 2.5 * self.prodrome)
        irregular = spread * noise * (1 + 0.9 * self.prodrome)
        values = usual + sway + irregular * self.rng.normal(0, 1, len(self.person))
        return np.clip(values, floor, ceiling)


def _lose_readings(rng: np.random.Generator, frame: pl.DataFrame) -> pl.DataFrame:
    """Blank readings the device did not take: nights more often than steps (LifeSnaps)."""
    night_lost = rng.random(frame.height) < 0.25
    hrv_lost = night_lost | (rng.random(frame.height) < 0.3)
    night = ["sleep_minutes", "sleep_efficiency"]
    return frame.with_columns(
        pl.when(pl.Series(~night_lost)).then(pl.col(name)).alias(name) for name in night
    ).with_columns(pl.when(pl.Series(~hrv_lost)).then(pl.col("hrv_rmssd")).alias("hrv_rmssd"))
