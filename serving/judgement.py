"""What a release and its explanations say about one individual."""

from dataclasses import dataclass

import numpy as np

from monitoring.metrics import MODEL_INFERENCE_DURATION
from serving.features import Features, Values, keep_consented
from serving.reasons import Reason, combine_attributions, explain
from serving.release import Release
from serving.scoring import (
    Estimate,
    Inputs,
    Vector,
    assemble_sequence,
    assemble_vector,
    estimate,
    list_missing_data,
)


@dataclass(frozen=True)
class Judgement:
    """`values` are the models' input as they saw it, None where missing."""

    release: Release
    estimate: Estimate
    reasons: list[Reason]
    values: Values
    missing_data: list[str]


def judge(release: Release, found: Features, consented: frozenset[str]) -> Judgement:
    """Score and explain one individual with a release."""
    features = release.manifest.features
    data_types = {feature.name: feature.data_type for feature in features}
    values = keep_consented(found.values, data_types, consented)
    vector = assemble_vector(features, values)
    missing = list_missing_data(features, vector)
    sequence = release.manifest.sequence
    weeks = assemble_sequence(sequence, found.sequences, consented) if sequence else None
    probabilities = predict_members(release, Inputs(vector, weeks))
    return Judgement(
        release=release,
        estimate=estimate(release.manifest, probabilities, len(missing)),
        reasons=explain_release(release, vector),
        values=list_inputs(release, vector),
        missing_data=missing,
    )


def predict_members(release: Release, inputs: Inputs) -> dict[str, float]:
    probabilities = {}
    for name, member in release.members.items():
        with MODEL_INFERENCE_DURATION.labels(name).time():
            probabilities[name] = member.predict(inputs)
    return probabilities


def explain_release(release: Release, vector: Vector) -> list[Reason]:
    attributions = {
        name: member.explainer.explain(vector)
        for name, member in release.members.items()
        if member.explainer is not None
    }
    features = release.manifest.features
    combined = combine_attributions(release.manifest.stacker, attributions, len(features))
    return explain(features, vector, combined)


def list_inputs(release: Release, vector: Vector) -> dict[str, float | None]:
    names = [feature.name for feature in release.manifest.features]
    return {
        name: None if np.isnan(value) else float(value)
        for name, value in zip(names, vector[0], strict=True)
    }
