"""Embeddings of the weeks that are known already, taken where they fit exactly.

A flow stores them under the member's version and the hash of the weeks it was given. Other weeks
(data that landed since, a consent that ended) or another version have another key, and the
member embeds them live: the numbers are the same either way. Where all weeks are missing there
is one embedding for everyone.
"""

import hashlib

import numpy as np

from feature_repo.stored_views import StoredRow
from mlruns_config.manifest import MemberPin
from serving.scoring.estimate import WeeklySequence
from serving.scoring.loaded_release import Embedding, Release


def make_output_key(version: int, weeks: WeeklySequence) -> str:
    """Return the key of the embedding by a member's version of float32 [1, weeks, channels]."""
    # One NaN for all: there are millions of bit patterns that mean "unknown".
    canonical = np.where(np.isnan(weeks), np.float32(np.nan), weeks).astype("<f4")
    return f"{version}:{hashlib.sha256(canonical.tobytes()).hexdigest()}"


def find_known_embeddings(
    release: Release, row: StoredRow, weeks: WeeklySequence | None
) -> dict[str, Embedding]:
    """Return the embeddings that need no computing, by member.

    They were stored for exactly these weeks and this version, or all of the weeks are missing,
    which has one embedding. A member without a head has none.
    """
    if weeks is None:
        return {}
    is_empty, known = bool(np.isnan(weeks).all()), {}
    for name, member in release.members.items():
        if not member.pin.has_head:
            continue
        stored = row.values.get(f"{name}_embedding")
        if is_empty:
            known[name] = member.embedding_of_nothing
        elif stored is not None and is_stored_for(row, member.pin, weeks):
            known[name] = np.array([stored], np.float32)
    return known


def is_stored_for(row: StoredRow, pin: MemberPin, weeks: WeeklySequence) -> bool:
    """Return True if the stored embedding is of exactly this version and these weeks."""
    key = row.values.get(f"{pin.name}_key")
    return key is not None and key == make_output_key(pin.version, weeks)
