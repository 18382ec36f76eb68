"""The stored weeks as the Production release's sequence members embed them, computed by a flow."""

from feature_repo.feast_library import Array, FeatureView, Field, Float32, String
from feature_repo.individual import individual, make_feature_source
from feature_repo.stored_views import SEQUENCE_MEMBERS, SEQUENCE_OUTPUTS


def _describe_member(member: str) -> tuple[Field, Field]:
    embedding = Field(
        name=f"{member}_embedding",
        dtype=Array(Float32),
        tags={"unit": "none, from -1 to 1"},
        description=f"the weeks in a few numbers, from which the head of {member} estimates",
    )
    key = Field(
        name=f"{member}_key",
        dtype=String,
        tags={"unit": "version and SHA-256"},
        description=f"version of {member} and hash of the weeks it was given",
    )
    return embedding, key


sequence_outputs = FeatureView(
    name=SEQUENCE_OUTPUTS.name,
    entities=[individual],
    ttl=SEQUENCE_OUTPUTS.ttl,
    schema=[field for member in SEQUENCE_MEMBERS for field in _describe_member(member)],
    source=make_feature_source(SEQUENCE_OUTPUTS.name),
)
