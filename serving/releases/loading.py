"""Loads a release: downloaded by numeric version, verified, warmed up.

Nothing that executes is loaded: ONNX graphs, LightGBM's text model and JSON only, each
checked against the SHA-256 in the release's manifest first. Graphs run in a process of their
own, with limits, before a worker opens them.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
from pydantic import ValidationError

from mlruns_config.manifest import (
    EMBEDDING,
    HEAD_FILE,
    MANIFEST_FILE,
    MANIFEST_HASH_TAG,
    RELEASE_MODEL,
    MemberPin,
    ReleaseManifest,
    hash_file,
)
from mlruns_config.uncertainty import REFITS_FILE, REFITS_OUTPUT, UNFAMILIARITY_OUTPUT
from serving.audit.signing import KeyRing
from serving.errors import ScoringFailedError
from serving.releases.probe import GraphLimitError, run_within_limits
from serving.releases.registry import Registry
from serving.releases.signatures import SIGNATURE_TAG, is_signed
from serving.scoring.estimate import (
    Inputs,
    WeeklySequence,
    assemble_sequence,
    assemble_vector,
    to_log_odds,
    to_probability,
)
from serving.scoring.explainers import (
    Explainer,
    ExplainerError,
    load_linear_explainer,
    load_tree_explainer,
)
from serving.scoring.loaded_release import OUTPUT_NAME, Member, Release

#: Log-odds by which an explanation may miss its member: float32 rounding, no more.
EXPLANATION_TOLERANCE = 0.01

#: Sizes of each input of a graph after the first axis.
Shapes = Mapping[str, list[int]]

#: Digests of the artifacts of releases whose graphs have run within the limits in this process.
_probed: set[frozenset[str]] = set()


class ReleaseRejectedError(Exception):
    """A release that must not be served; the message names the part and the reason."""


def load_release(registry: Registry, version: int, keys: KeyRing | None = None) -> Release:
    """Download, verify and warm up one version of the release.

    With `keys` its manifest must be signed by one of them; that is verified first. Raises
    ReleaseRejectedError when any part is not what the manifest pins, and RegistryUnavailableError
    when MLflow does not deliver it.
    """
    with TemporaryDirectory(prefix="mhras-release-") as folder:
        manifest = _fetch_manifest(registry, version, Path(folder), keys)
        watcher = manifest.familiarity.member if manifest.familiarity else None
        place = Path(folder) / "members"
        fetched = {
            pin.name: _fetch_artifacts(registry, pin, place / pin.name) for pin in manifest.members
        }
        _probe_graphs(manifest, fetched)
        members = {
            pin.name: _load_member(pin, manifest, fetched[pin.name])
            for pin in manifest.members
            if pin.name != watcher
        }
        forests = [
            _load_forest(pin, manifest, fetched[pin.name])
            for pin in manifest.members
            if pin.name == watcher
        ]
    release = Release(version, manifest, members, datetime.now(UTC), next(iter(forests), None))
    _warm_up(release)
    return release


def _probe_graphs(manifest: ReleaseManifest, fetched: Mapping[str, Sequence[Path]]) -> None:
    """Run every graph in another process first; those that ended before are not run again."""
    graphs = [path for files in fetched.values() for path in files if path.suffix == ".onnx"]
    digests = frozenset(digest for pin in manifest.members for digest in pin.artifacts.values())
    if digests in _probed:
        return
    try:
        run_within_limits(graphs)
    except GraphLimitError as error:
        raise ReleaseRejectedError(str(error)) from None
    _probed.add(digests)


def _load_forest(
    pin: MemberPin, manifest: ReleaseManifest, files: Sequence[Path]
) -> onnxruntime.InferenceSession:
    (graph,) = files
    return _open_session(pin, graph, _describe_shapes(pin, manifest), UNFAMILIARITY_OUTPUT)


def _fetch_manifest(
    registry: Registry, version: int, folder: Path, keys: KeyRing | None
) -> ReleaseManifest:
    path = folder / MANIFEST_FILE
    registry.download(RELEASE_MODEL, version, MANIFEST_FILE, path)
    digest = hash_file(path)
    if digest != registry.read_tag(RELEASE_MODEL, version, MANIFEST_HASH_TAG):
        raise ReleaseRejectedError(f"{MANIFEST_FILE} is not the one that was registered")
    if keys is not None:
        signature = registry.read_tag(RELEASE_MODEL, version, SIGNATURE_TAG)
        if not is_signed(version, digest, signature, keys):
            raise ReleaseRejectedError(f"{MANIFEST_FILE} is not signed by a key of releases")
    try:
        return ReleaseManifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        )
        raise ReleaseRejectedError(f"{MANIFEST_FILE} is not usable: {problems}") from None


def _load_member(pin: MemberPin, manifest: ReleaseManifest, files: Sequence[Path]) -> Member:
    beside = {REFITS_FILE, HEAD_FILE}
    graphs = [path for path in files if path.suffix == ".onnx" and path.name not in beside]
    if len(graphs) != 1:
        raise ReleaseRejectedError(f"{pin.name} pins {len(graphs)} ONNX graphs, one is needed")
    shapes, by_name = _describe_shapes(pin, manifest), {path.name: path for path in files}
    session = _open_session(pin, graphs[0], shapes, OUTPUT_NAME)
    refits, head = by_name.get(REFITS_FILE), by_name.get(HEAD_FILE)
    return Member(
        pin,
        session,
        _load_explainer(pin, files, len(manifest.features)),
        None if refits is None else _open_session(pin, refits, shapes, REFITS_OUTPUT),
        None if head is None else _open_head(pin, head, shapes, session),
    )


def _open_head(
    pin: MemberPin, path: Path, shapes: Shapes, session: onnxruntime.InferenceSession
) -> onnxruntime.InferenceSession:
    """Open the head of a member; what it takes is what the member's graph gives."""
    sizes = [node.shape[1:] for node in session.get_outputs() if node.name == EMBEDDING]
    if len(sizes) != 1:
        raise ReleaseRejectedError(f"{pin.name} pins a head and its graph gives no {EMBEDDING}")
    given = {EMBEDDING: sizes[0], "features": shapes["features"]}
    return _open_session(pin, path, given, OUTPUT_NAME)


def _fetch_artifacts(registry: Registry, pin: MemberPin, folder: Path) -> list[Path]:
    files = []
    for path, expected in pin.artifacts.items():
        target = folder / _require_inside(pin, path)
        registry.download(pin.registered_model, pin.version, path, target)
        if hash_file(target) != expected:
            raise ReleaseRejectedError(
                f"{pin.registered_model} version {pin.version} {path} is not the file that was "
                "evaluated: its SHA-256 differs from the manifest"
            )
        files.append(target)
    return files


def _require_inside(pin: MemberPin, path: str) -> PurePosixPath:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        raise ReleaseRejectedError(f"{pin.name} pins an artifact outside its own folder")
    return parts


def _open_session(
    pin: MemberPin, path: Path, shapes: Shapes, output: str
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # One row has nothing to share out between threads; several only wait for each other.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's own errors share no base class
        raise ReleaseRejectedError(f"{pin.name} is no usable ONNX graph") from error
    _check_signature(pin, session, shapes, output)
    return session


def _describe_shapes(pin: MemberPin, manifest: ReleaseManifest) -> Shapes:
    """Return the sizes of each of a member's inputs after the first axis."""
    shapes = {"features": [len(manifest.features)]}
    if manifest.sequence is not None:
        shapes["sequence"] = [manifest.sequence.weeks, len(manifest.sequence.channels)]
    return {name: shapes[name] for name in pin.inputs}


def _check_signature(
    pin: MemberPin, session: onnxruntime.InferenceSession, shapes: Shapes, output: str
) -> None:
    inputs = {node.name: node.shape[1:] for node in session.get_inputs()}
    outputs = {node.name for node in session.get_outputs()}
    if set(inputs) != set(shapes) or output not in outputs:
        raise ReleaseRejectedError(f"{pin.name} must map {' and '.join(shapes)} to {output}")
    for name, shape in shapes.items():
        if inputs[name] != shape:
            raise ReleaseRejectedError(
                f"{pin.name} takes {name} of shape {inputs[name]}, the manifest describes {shape}"
            )


def _load_explainer(pin: MemberPin, files: Sequence[Path], width: int) -> Explainer | None:
    by_name = {path.name: path for path in files}
    try:
        if "linear.json" in by_name:
            return load_linear_explainer(by_name["linear.json"])
        if "model.txt" in by_name:
            return load_tree_explainer(by_name["model.txt"], width)
    except (ExplainerError, ValueError) as error:
        raise ReleaseRejectedError(f"{pin.name} cannot be explained: {error}") from None
    return None


def _warm_up(release: Release) -> None:
    """Score what training saw as usual, and nothing at all, before any individual is scored."""
    features = release.manifest.features
    for values in (
        {},
        {feature.name: feature.usual_low for feature in features},
        {feature.name: feature.usual_high for feature in features},
    ):
        inputs = Inputs(assemble_vector(features, values), _make_unknown_sequence(release))
        for member in release.members.values():
            check_member(member, inputs)
        try:
            check_uncertainty(release, inputs)
        except ScoringFailedError as error:
            raise ReleaseRejectedError(error.detail) from error


def _make_unknown_sequence(release: Release) -> WeeklySequence | None:
    description = release.manifest.sequence
    return None if description is None else assemble_sequence(description, {}, ())


def check_uncertainty(release: Release, inputs: Inputs) -> None:
    """Raise ReleaseRejectedError unless the number of refits is that of the manifest.

    Raises ScoringFailedError where a graph fails.
    """
    release.measure_unfamiliarity(inputs)
    counts = {head.uncertainty.refits for head in release.manifest.heads if head.uncertainty}
    for member in release.members.values():
        refits = member.predict_refits(inputs)
        if refits is not None and refits.shape[1] not in counts:
            raise ReleaseRejectedError(
                f"{member.pin.name} has {refits.shape[1]} refits, the manifest has {counts}"
            )


def check_member(member: Member, inputs: Inputs) -> None:
    """Raise ReleaseRejectedError unless `member` gives a probability and its own explanation."""
    try:
        probability = member.predict(inputs)
    except ScoringFailedError as error:
        raise ReleaseRejectedError(error.detail) from error
    if member.explainer is None:
        return
    # Through the probability and back, so that both are cut off at the same margin.
    told = np.array([member.explainer.explain(inputs.vector).log_odds])
    explained = to_log_odds(to_probability(told))
    if abs(explained - to_log_odds(np.array([probability])))[0] > EXPLANATION_TOLERANCE:
        raise ReleaseRejectedError(f"{member.pin.name}: explanation and graph disagree")
