"""Wearable days: they lean a little on severity and grow irregular before symptoms are reported."""

import numpy as np
import polars as pl
from scipy.special import ndtr, ndtri

from flows.simulation.channels import CHANNELS, Channel
from flows.simulation.latent import BLOCK_SIZE, Block, find_winter
from flows.simulation.participation import simulate_last_weeks
from flows.simulation.processes import (
    Bools,
    Floats,
    draw_autoregression,
    draw_persistent_flags,
)

#: Of the group that wears a device most.
WEARER_SHARE = 0.85
#: Wearers of LifeSnaps have steps on 88 % of the days between their first and last, and are the
#: likelier to have them tomorrow the more they have today.
WORN_CHANCE, WORN_OWN, WORN_SLOW, WORN_PERSISTENCE = 0.9, 0.25, 0.7, 0.92
#: Who is unwell wears less (by design), in standard deviations of the index of wearing.
WORN_EFFECT = -0.15
#: Weekly hazard of putting a device away for good, so that steps are there on 64 % of all days.
ABANDON_HAZARD = 0.004
#: Nights are lost more often than days, in runs (LifeSnaps), and HRV more often than nights.
NIGHT_LOST, NIGHT_OWN, NIGHT_SLOW, NIGHT_PERSISTENCE = 0.25, 0.65, 0.25, 0.7
HRV_LOST = 0.3
#: An episode that builds up makes days more irregular, which windows of standard deviations can
#: see before a total score does, and weighs on levels before symptoms do. By design.
IRREGULAR_IN_EPISODE = 0.3
PRODROME_WEIGHT = 1.0

WEEKEND = 5
DAYS = 7


def simulate_wearable_days(block: Block) -> pl.DataFrame:
    """Draw the days on which a device was worn, every channel of each."""
    worn = _draw_worn(block)
    person, day = np.nonzero(worn)
    columns = {name: values[worn] for name, values in _draw_channels(block).items()}
    frame = pl.DataFrame(
        {
            "person_id": block.person_ids(person),
            "date": pl.Series(np.datetime64(block.start) + day).cast(pl.Date),
        }
        | {name: np.round(values, 1).astype(np.float32) for name, values in columns.items()}
    )
    return _lose_readings(block, frame, worn)


def _draw_worn(block: Block) -> Bools:
    """Return the days of each individual on which a device was worn, [people, days]."""
    rng = block.rng
    wearer = rng.random(BLOCK_SIZE) < WEARER_SHARE * block.differences.wearing
    unwell = _spread_over_days(block, block.severity)
    chance = ndtr(ndtri(WORN_CHANCE) + WORN_EFFECT * unwell)
    worn = draw_persistent_flags(rng, chance, WORN_OWN, WORN_SLOW, WORN_PERSISTENCE)
    abandoned = simulate_last_weeks(rng, block.severity, ABANDON_HAZARD, np.ones(BLOCK_SIZE))
    last = DAYS * np.minimum(abandoned, block.last_week)
    return worn & wearer[:, None] & (np.arange(block.days) < last[:, None])


def _spread_over_days(block: Block, weekly: Floats) -> Floats:
    return np.repeat(weekly, DAYS, axis=1)[:, : block.days]


def _draw_channels(block: Block) -> dict[str, Floats]:
    weights = block.severity + PRODROME_WEIGHT * block.prodrome
    burden = _spread_over_days(block, weights)
    irregular = 1 + IRREGULAR_IN_EPISODE * _spread_over_days(block, block.prodrome)
    noises: dict[str, Floats] = {}
    drawn: dict[str, Floats] = {}
    for name, channel in CHANNELS.items():
        own = _draw_noise(block, channel)
        leader = noises.get(channel.follows)
        noises[name] = own if leader is None else _mix(leader, own, channel.shared)
        drawn[name] = _draw_channel(block, channel, noises[name] * irregular, burden)
    return drawn


def _draw_noise(block: Block, channel: Channel) -> Floats:
    """Return noise of variance 1 with the channel's slow and weekly parts, [people, days]."""
    rng = block.rng
    fresh = rng.standard_normal((BLOCK_SIZE, block.days), dtype=np.float32)
    noise = np.sqrt(max(0.0, 1 - channel.slow - channel.weekly)) * fresh
    if channel.slow:
        slow = draw_autoregression(rng, BLOCK_SIZE, block.days, channel.persistence)
        noise += np.sqrt(channel.slow) * slow
    if channel.weekly:
        rhythm = rng.standard_normal((BLOCK_SIZE, DAYS))
        noise += np.sqrt(channel.weekly) * rhythm[:, np.arange(block.days) % DAYS]
    return noise


def _mix(leader: Floats, own: Floats, shared: float) -> Floats:
    return np.asarray(shared * leader + np.sqrt(1 - shared**2) * own)


def _draw_channel(block: Block, channel: Channel, noise: Floats, burden: Floats) -> Floats:
    rng = block.rng
    least = max(channel.floor, channel.mean - 2.5 * channel.between)
    level = np.maximum(rng.normal(channel.mean, channel.between, (BLOCK_SIZE, 1)), least)
    spread = channel.within * np.exp(rng.normal(0, channel.heterogeneity, (BLOCK_SIZE, 1)))
    spread = spread * (level / channel.mean) ** channel.growth
    days = np.arange(block.days)
    weekend = (days + block.start.weekday()) % DAYS >= WEEKEND
    calendar = channel.weekend * weekend - channel.season * channel.mean * find_winter(
        block.start, days
    )
    values = level + calendar + channel.effect * burden + spread * _skew(noise, channel.skewness)
    return np.clip(values, channel.floor, channel.ceiling)


def _skew(noise: Floats, skewness: float) -> Floats:
    """Give normal noise this skewness: a gamma variable, by Wilson and Hilferty (1931)."""
    if not skewness:
        return noise
    cube = (1 + skewness * noise / 6 - skewness**2 / 36) ** 3
    return np.asarray((cube - 1) * 2 / skewness)


def _lose_readings(block: Block, frame: pl.DataFrame, worn: Bools) -> pl.DataFrame:
    """Blank the nights and heart rate variability that the device did not take."""
    rng = block.rng
    chance = np.full(worn.shape, NIGHT_LOST)
    lost = draw_persistent_flags(rng, chance, NIGHT_OWN, NIGHT_SLOW, NIGHT_PERSISTENCE)[worn]
    hrv_lost = lost | (rng.random(frame.height) < HRV_LOST)
    gaps = {"sleep_minutes": lost, "sleep_efficiency": lost, "hrv_rmssd": hrv_lost}
    return frame.with_columns(
        pl.when(pl.Series(~gap)).then(pl.col(name)).alias(name) for name, gap in gaps.items()
    )
