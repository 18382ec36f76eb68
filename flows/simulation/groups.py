"""Differences between groups that are planted, so that fairness gates have something to find.

Each is of a published size; the README beside this file has the sources. The same PHQ-9 answers
mean the same in every group (NHANES 2005-2016: Patel 2019), so no item differs by group.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flows.simulation.demographics import Demographics
from flows.simulation.processes import Floats

YOUNG, OLD = 30, 60
#: Wearing falls from this age on (Pew Research Center 2020).
WEARING_FALLS = 50

#: Shift of severity in standard deviations of the general population, set so that differences in
#: mean PHQ-9, in its standard deviations, are those of NHANES 2017-2018 (weighted). Of the lower
#: mean of Asian adults half is planted: who has less access to care is in it when more ill.
SEVERITY_BY_SEX = {"female": 0.08, "male": -0.11}
SEVERITY_BY_ETHNICITY = {"asian": -0.18, "other": 0.25}
SEVERITY_OF_YOUNG, SEVERITY_OF_OLD = 0.08, -0.04
#: Chance of outpatient mental health care, relative to white adults (NSDUH 2021).
ACCESS_BY_ETHNICITY = {"black": 39.4 / 52.4, "hispanic": 36.1 / 52.4, "asian": 25.4 / 52.4}
#: Rate of emergency visits for mental health, relative to white adults (Peters 2023).
EMERGENCY_BY_ETHNICITY = {"black": 96.8 / 53.4, "hispanic": 36.0 / 53.4}
#: Hazard of leaving, relative to others: STAR*D lost young and African American patients more
#: often (Warden 2007), without a hazard ratio; the size is by design.
LEAVING_OF_YOUNG, LEAVING_BY_ETHNICITY = 1.4, {"black": 1.3}
#: Chance of wearing a device, relative to those who wear it most (Pew Research Center 2020).
WEARING_OF_OLD, WEARING_BY_SEX = 17 / 25, {"male": 18 / 25}


@dataclass(frozen=True)
class Differences:
    """What is planted, [people] each: a shift of severity, and factors of 1 where nothing is."""

    severity: Floats
    access: Floats
    emergency: Floats
    leaving: Floats
    wearing: Floats


def find_differences(people: Demographics) -> Differences:
    young, old = people.age < YOUNG, people.age >= OLD
    return Differences(
        severity=_look_up(SEVERITY_BY_SEX, people.sex, 0.0)
        + _look_up(SEVERITY_BY_ETHNICITY, people.ethnicity, 0.0)
        + SEVERITY_OF_YOUNG * young
        + SEVERITY_OF_OLD * old,
        access=_look_up(ACCESS_BY_ETHNICITY, people.ethnicity, 1.0),
        emergency=_look_up(EMERGENCY_BY_ETHNICITY, people.ethnicity, 1.0),
        leaving=_look_up(LEAVING_BY_ETHNICITY, people.ethnicity, 1.0)
        * np.where(young, LEAVING_OF_YOUNG, 1.0),
        wearing=_look_up(WEARING_BY_SEX, people.sex, 1.0)
        * np.where(people.age >= WEARING_FALLS, WEARING_OF_OLD, 1.0),
    )


def _look_up(values: Mapping[str, float], groups: NDArray[np.str_], usual: float) -> Floats:
    return np.array([values.get(group, usual) for group in groups])
