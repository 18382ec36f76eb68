"""Outputs of sequence members that a flow has scored already, taken where they fit exactly.

They are stored under the member's version and the hash of the weeks it was given. Other weeks
(data that landed since, a consent that ended) or another version have another key, and the
member is scored live: the numbers are the same either way.
"""

import hashlib

import numpy as np

from feature_repo.stored_views import StoredRow
from serving.scoring.estimate import WeeklySequence
from serving.scoring.loaded_release import Release


def make_output_key(version: int, weeks: WeeklySequence) -> str:
    """Return the key of the output of a member's version for float32 [1, weeks, channels]."""
    # One NaN for all: there are millions of bit patterns that mean "unknown".
    canonical = np.where(np.isnan(weeks), np.float32(np.nan), weeks).astype("<f4")
    return f"{version}:{hashlib.sha256(canonical.tobytes()).hexdigest()}"


def find_stored_outputs(
    release: Release, row: StoredRow, weeks: WeeklySequence | None
) -> dict[str, float]:
    """Return the outputs that stand for exactly these weeks and these versions, by member."""
    if weeks is None:
        return {}
    outputs = {}
    for name, member in release.members.items():
        key, output = row.values.get(f"{name}_key"), row.values.get(f"{name}_output")
        if key is None or output is None or member.pin.input != "sequence":
            continue
        if key == make_output_key(member.pin.version, weeks):
            outputs[name] = float(output)
    return outputs
