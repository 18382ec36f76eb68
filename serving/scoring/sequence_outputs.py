"""Outputs of sequence members that are known already, taken where they fit exactly.

A flow stores them under the member's version and the hash of the weeks it was given. Other weeks
(data that landed since, a consent that ended) or another version have another key, and the
member is scored live: the numbers are the same either way. Where all weeks are missing there is
one output for everyone.
"""

import hashlib

import numpy as np

from feature_repo.stored_views import StoredRow
from mlruns_config.manifest import MemberPin
from serving.scoring.estimate import WeeklySequence
from serving.scoring.loaded_release import Release


def make_output_key(version: int, weeks: WeeklySequence) -> str:
    """Return the key of the output of a member's version for float32 [1, weeks, channels]."""
    # One NaN for all: there are millions of bit patterns that mean "unknown".
    canonical = np.where(np.isnan(weeks), np.float32(np.nan), weeks).astype("<f4")
    return f"{version}:{hashlib.sha256(canonical.tobytes()).hexdigest()}"


def find_known_outputs(
    release: Release, row: StoredRow, weeks: WeeklySequence | None
) -> dict[str, float]:
    """Return the outputs of sequence members that need no scoring, by member.

    They were stored for exactly these weeks and this version, or all of the weeks are missing,
    which has one output.
    """
    if weeks is None:
        return {}
    is_empty, outputs = bool(np.isnan(weeks).all()), {}
    for name, member in release.members.items():
        if member.pin.input != "sequence":
            continue
        output = row.values.get(f"{name}_output")
        if is_empty:
            outputs[name] = member.output_of_nothing
        elif output is not None and is_stored_for(row, member.pin, weeks):
            outputs[name] = float(output)
    return outputs


def is_stored_for(row: StoredRow, pin: MemberPin, weeks: WeeklySequence) -> bool:
    """Return True if the stored output is of exactly this version and these weeks."""
    key = row.values.get(f"{pin.name}_key")
    return key is not None and key == make_output_key(pin.version, weeks)
