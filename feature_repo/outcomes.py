"""The outcomes that are estimated: each named, versioned and defined once.

Sources: PHQ-9 of 15 is moderately severe, 10 the cut-off of a probable depressive disorder
(Kroenke 2001, doi 10.1046/j.1525-1497.2001.016009606.x); a change of 5 is clinically
significant (Kroenke 2012, doi 10.1016/j.genhosppsych.2012.06.009).
"""

from dataclasses import dataclass

#: Days after the index date within which an outcome counts.
HORIZON_DAYS = 90

#: PHQ-9 total of a moderately severe depression.
PHQ9_SEVERE_COURSE = 15


@dataclass(frozen=True)
class Outcome:
    """An outcome; `text` completes "a 62 % chance of ..."."""

    name: str
    version: int
    text: str

    @property
    def key(self) -> str:
        """Return the name with its version, as records keep it: `adverse_course_v1`."""
        return f"{self.name}_v{self.version}"


#: The priority's: it rises with present severity.
ADVERSE_COURSE = Outcome(
    "adverse_course",
    1,
    f"PHQ-9 of {PHQ9_SEVERE_COURSE} or more, a marked rise or acute psychiatric care within "
    f"{HORIZON_DAYS} days",
)
#: Beside it: a rise of at least 5 to at least 10, or acute psychiatric care. Releases before
#: outcomes had names estimated this one.
WORSENING = Outcome(
    "worsening", 1, f"a further marked rise or acute psychiatric care within {HORIZON_DAYS} days"
)
OUTCOMES = (ADVERSE_COURSE, WORSENING)
#: PHQ-9 total from which on a further rise of 5 is hardly possible, so that severity itself is
#: the message (the lower edge of "severe").
SEVERE_FROM = 20


def find_outcome(key: str) -> Outcome:
    """Return the outcome of a key; raises KeyError for one that was never defined."""
    return {outcome.key: outcome for outcome in OUTCOMES}[key]
