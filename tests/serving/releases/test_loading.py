import json
from dataclasses import replace

import numpy as np
import pytest

from mlruns_config.heads import Stacker
from mlruns_config.manifest import MEMBER_MODELS
from serving.audit.signing import KeyRing, Signer
from serving.releases import loading
from serving.releases.loading import ReleaseRejectedError, check_member, load_release
from serving.releases.probe import GraphLimitError
from serving.releases.registry import Registry
from serving.releases.signatures import make_release_keys
from serving.scoring.estimate import Inputs, assemble_vector
from serving.settings import MissingSettingError
from tests.fixtures.api import make_settings
from tests.fixtures.releases import FEATURES, RELEASE_KEY, draw_training_data


@pytest.fixture
def registry(mlflow_url):
    registry = Registry(mlflow_url)
    yield registry
    registry.close()


def change_pin(releases, position, **changes):
    pins = list(releases.pins)
    pins[position] = pins[position].model_copy(update=changes)
    return pins


def test_an_artifact_whose_hash_differs_is_refused(registry, releases):
    tampered = releases.pins[1].artifacts | {"model.onnx": "0" * 64}
    version = releases.publish(promote=False, members=change_pin(releases, 1, artifacts=tampered))

    with pytest.raises(ReleaseRejectedError, match=r"mhras-lightgbm version 1 model\.onnx"):
        load_release(registry, version)


def test_a_manifest_that_was_changed_after_registration_is_refused(registry, releases):
    version = releases.publish(promote=False)
    releases.tag_manifest(version, "0" * 64)

    with pytest.raises(ReleaseRejectedError, match=r"release\.json is not the one"):
        load_release(registry, version)


OTHER_KEY = "b3RoZXIta2V5LW9mLXRlc3RzLTMyLWJ5dGVzISEhISE="


@pytest.fixture
def keys():
    return KeyRing([Signer(RELEASE_KEY).public_key])


def sign_as(seed, **changes):
    """Return a signature by a key, of a document whose parts `changes` replace."""
    return lambda version, digest: json.dumps(
        Signer(seed).sign(
            {
                "kind": "mhras-release",
                "name": "mhras-risk",
                "version": version,
                "manifest_sha256": digest,
            }
            | changes
        )
    )


@pytest.mark.parametrize(
    "sign",
    [
        lambda version, digest: "",
        lambda version, digest: "no JSON",
        lambda version, digest: "[]",
        sign_as(OTHER_KEY),
        sign_as(RELEASE_KEY, version=1),
        sign_as(RELEASE_KEY, manifest_sha256="0" * 64),
        sign_as(RELEASE_KEY, kind="mhras-erasure-receipt"),
    ],
    ids=["none", "text", "list", "key", "version", "manifest", "kind"],
)
def test_a_manifest_that_is_not_signed_for_this_version_is_refused(registry, releases, keys, sign):
    version = releases.publish(promote=False)
    releases.tag_signature(version, sign(version, releases.read_digest(version)))

    with pytest.raises(ReleaseRejectedError, match="not signed by a key of releases"):
        load_release(registry, version, keys)


def test_a_signed_release_is_loaded_and_its_signature_verified(registry, releases, keys):
    version = releases.publish(promote=False)

    assert load_release(registry, version, keys).version == version


def test_without_keys_only_development_serves_releases():
    with pytest.raises(MissingSettingError, match="RELEASE_PUBLIC_KEYS"):
        make_release_keys(make_settings("postgresql://x/y", "http://x", release_public_keys=""))
    developed = make_settings("postgresql://x/y", "http://x", release_public_keys="")
    assert make_release_keys(developed.model_copy(update={"env": "development"})) is None


def test_a_member_without_a_graph_is_refused(registry, releases):
    only_text = {"model.txt": releases.pins[1].artifacts["model.txt"]}
    version = releases.publish(promote=False, members=change_pin(releases, 1, artifacts=only_text))

    with pytest.raises(ReleaseRejectedError, match="pins 0 ONNX graphs"):
        load_release(registry, version)


def test_an_artifact_outside_its_folder_is_refused(registry, releases):
    outside = {"../model.onnx": "0" * 64, "refits.onnx": "0" * 64}
    version = releases.publish(promote=False, members=change_pin(releases, 0, artifacts=outside))

    with pytest.raises(ReleaseRejectedError, match="outside its own folder"):
        load_release(registry, version)


def test_a_graph_of_another_width_is_refused(registry, releases):
    version = releases.publish(promote=False, features=FEATURES[:-1])

    with pytest.raises(ReleaseRejectedError, match=r"shape \[7\], the manifest describes \[6\]"):
        load_release(registry, version)


def test_a_member_explained_by_another_model_is_refused(registry, releases):
    release = load_release(registry, releases.publish(promote=False))
    explainer = release.members["lightgbm"].explainer
    mismatched = replace(release.members["logistic_regression"], explainer=explainer)

    with pytest.raises(ReleaseRejectedError, match="explanation and graph disagree"):
        check_member(mismatched, Inputs(assemble_vector(FEATURES, {})))


def test_a_verified_release_scores_as_the_training_libraries_do(registry, releases):
    release = load_release(registry, releases.publish(promote=False))
    rows, _ = draw_training_data()

    for row in rows[:50]:
        expected = releases.members.booster.predict(row[np.newaxis])[0]
        assert release.members["lightgbm"].predict(Inputs(row[np.newaxis])) == pytest.approx(
            expected, abs=1e-5
        )


def test_a_member_without_weight_is_loaded_and_only_watches(registry, releases):
    stacker = Stacker(intercept=0, coefficients={"logistic_regression": 1.0})
    release = load_release(registry, releases.publish(promote=False, stacker=stacker))

    assert list(release.members) == ["logistic_regression", "lightgbm"]
    assert (
        release.members["logistic_regression"].pin.registered_model
        == MEMBER_MODELS["logistic_regression"]
    )


def test_a_row_of_nothing_still_gets_a_probability(registry, releases):
    release = load_release(registry, releases.publish(promote=False))
    nothing = Inputs(assemble_vector(FEATURES, {}))

    assert all(0 < member.predict(nothing) < 1 for member in release.members.values())


def test_a_release_whose_graphs_exceed_the_limits_is_refused_before_they_are_opened(
    registry, releases, monkeypatch
):
    version = releases.publish(promote=False)

    def give_up(graphs):
        assert {path.name for path in graphs} == {"model.onnx", "refits.onnx"}
        raise GraphLimitError("a graph did not end within 60 s")

    monkeypatch.setattr(loading, "_probed", set())
    monkeypatch.setattr(loading, "run_within_limits", give_up)
    monkeypatch.setattr(loading, "_load_member", pytest.fail)
    with pytest.raises(ReleaseRejectedError, match="did not end within 60 s"):
        load_release(registry, version)
