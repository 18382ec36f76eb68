"""What a wearable measures: levels, spreads and rhythms fitted to LifeSnaps.

LifeSnaps (Yfantidou et al. 2022, zenodo.org/record/7229547): 71 people with a Fitbit Sense for two
to four months. Means and spreads are moments of its daily table (individuals with 14 days or more;
steps and active minutes of days with steps). The shares and persistence of the noise are the least
squares fit of slow, weekly and independent parts to the autocorrelation at lags of 1 to 28 days;
the fit allows for the bias of each individual's own mean over few days. Levels leave room for what
severity and the calendar add; effects are set so that slopes within individuals are the published.
`tests/flows/test_cohort.py` compares the simulated days with the real ones.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Channel:
    """One daily channel, in its own unit.

    The variance of an individual's days is divided into a `slow` part, an autoregression over
    days with `persistence`, a `weekly` rhythm of its own, and noise that is new every day.
    """

    mean: float
    between: float  # standard deviation of individuals' levels
    within: float  # standard deviation of an individual's days
    slow: float = 0.0
    persistence: float = 0.0
    weekly: float = 0.0
    heterogeneity: float = 0.2  # of the logarithm of `within` between individuals
    growth: float = 0.0  # power of the level by which `within` grows
    skewness: float = 0.0
    weekend: float = 0.0  # what a Saturday or Sunday adds
    season: float = 0.0  # what the middle of July adds, as a share of the mean
    effect: float = 0.0  # of one standard deviation of severity
    follows: str = ""  # another channel, whose noise this one shares
    shared: float = 0.0  # correlation with it
    floor: float = 0.0
    ceiling: float = float("inf")


#: A year of steps goes from 9,132 a day in winter to 10,417 in summer (Hamilton 2008, 96 adults).
STEPS_SEASON = (10_417 - 9_132) / (10_417 + 9_132)

CHANNELS = {
    "steps": Channel(
        mean=9_000,
        between=2_800,
        within=4_450,
        slow=0.17,
        persistence=0.886,
        weekly=0.10,
        growth=0.5,
        skewness=0.9,
        weekend=900,
        season=STEPS_SEASON,
        effect=-1_120,
        floor=100,
        ceiling=50_000,
    ),
    "active_minutes": Channel(
        mean=258,
        between=65,
        within=95,
        slow=0.17,
        persistence=0.863,
        weekly=0.10,
        growth=0.5,
        skewness=0.4,
        weekend=12,
        season=STEPS_SEASON,
        effect=-20,
        follows="steps",
        shared=0.76,
    ),
    "sleep_minutes": Channel(
        mean=393,
        between=45,
        within=84,
        slow=0.03,
        persistence=0.927,
        weekly=0.07,
        skewness=-0.5,
        weekend=8,
        effect=-2,
        floor=60,
        ceiling=840,
    ),
    "sleep_efficiency": Channel(
        mean=94.2,
        between=2.0,
        within=2.8,
        slow=0.13,
        persistence=0.838,
        skewness=-0.9,
        effect=-0.3,
        floor=45,
        ceiling=100,
    ),
    "resting_heart_rate": Channel(
        mean=66,
        between=6.7,
        within=2.8,
        slow=1.0,
        persistence=0.9,
        floor=38,
        ceiling=110,
    ),
    "hrv_rmssd": Channel(
        mean=42,
        between=17,
        within=10.5,
        slow=0.32,
        persistence=0.705,
        weekly=0.05,
        growth=0.7,
        effect=-1.2,
        follows="resting_heart_rate",
        shared=-0.45,
        floor=6,
        ceiling=160,
    ),
    #: LifeSnaps has no wear time: level and spread are by design.
    "wear_minutes": Channel(
        mean=1_180, between=120, within=120, slow=0.1, persistence=0.85, floor=300, ceiling=1_440
    ),
}
