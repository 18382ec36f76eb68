"""Which images run: written by a command, pinned to what a registry has."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from infra.cluster.release import (
    COMPONENT,
    ReleaseError,
    pin_release,
    read_image,
    set_release,
    write_image,
)
from infra.local.ports import choose_port

#: Debian's package docker-registry has the server, skopeo the client.
REGISTRY = shutil.which("docker-registry")


@pytest.fixture
def component(tmp_path: Path) -> Path:
    shutil.copytree(COMPONENT, tmp_path / "release")
    return tmp_path / "release"


@pytest.mark.parametrize("version", ["", "v1 0", "v1/0", "-v1", "v" * 40])
def test_a_version_that_is_no_tag_is_refused_and_nothing_written(
    component: Path, version: str
) -> None:
    before = {path: path.read_text() for path in component.iterdir()}
    with pytest.raises(ReleaseError, match="at most 32"):
        set_release(component, version)
    assert {path: path.read_text() for path in component.iterdir()} == before


def test_both_images_and_the_jobs_suffix_follow_the_version(component: Path) -> None:
    before = (component / "kustomization.yaml").read_text()
    set_release(component, "v2.0.0-RC1", "registry.example.org:5000/team")
    for name in ("mhras-api", "mhras-flows"):
        image = read_image(component, name)
        assert image["newName"] == f"registry.example.org:5000/team/{name}"
        assert image["newTag"] == "v2.0.0-RC1"
    text = (component / "release.yaml").read_text()
    assert "  version: v2.0.0-RC1\n" in text
    assert "  suffix: v2-0-0-rc1\n" in text
    comments = [line for line in before.splitlines() if line.startswith("#")]
    assert comments == [
        line
        for line in (component / "kustomization.yaml").read_text().splitlines()
        if line.startswith("#")
    ]


def test_a_new_version_drops_the_digest_of_the_old_one(component: Path) -> None:
    image = read_image(component, "mhras-api")
    write_image(component, image | {"digest": "sha256:" + "0" * 64})
    set_release(component, "v2.0.0")
    assert "digest" not in read_image(component, "mhras-api")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    if REGISTRY is None or shutil.which("skopeo") is None:
        pytest.skip("Debian's packages docker-registry and skopeo are not installed")
    port = choose_port(15950)
    config = tmp_path / "registry.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path / 'store'}}}}}\n"
        f"http: {{addr: 127.0.0.1:{port}}}\n"
    )
    server = subprocess.Popen(
        [REGISTRY, "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                httpx.get(f"http://127.0.0.1:{port}/v2/", trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=30)


def make_layout(folder: Path) -> None:
    """An OCI image without a layer, which is enough for a registry."""
    import hashlib

    def add(content: bytes) -> dict:
        digest = hashlib.sha256(content).hexdigest()
        (folder / "blobs" / "sha256" / digest).write_bytes(content)
        return {"digest": f"sha256:{digest}", "size": len(content)}

    (folder / "blobs" / "sha256").mkdir(parents=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    kind = "application/vnd.oci.image"
    config = add(b'{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers"}}')
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": config | {"mediaType": f"{kind}.config.v1+json"},
        "layers": [],
    }
    entry = add(json.dumps(manifest).encode()) | {"mediaType": f"{kind}.manifest.v1+json"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))


@pytest.mark.nightly
def test_each_image_is_pinned_to_the_digest_that_a_real_registry_has(
    component: Path, registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_layout(tmp_path / "image")
    insecure = tmp_path / ".config" / "containers" / "registries.conf"
    insecure.parent.mkdir(parents=True)
    insecure.write_text(f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')
    monkeypatch.setenv("HOME", str(tmp_path))
    set_release(component, "v1.0.0", registry)
    image = read_image(component, "postgres") | {"newName": f"{registry}/postgres"}
    write_image(component, image)
    (tmp_path / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    for name, tag in (("mhras-api", "v1.0.0"), ("mhras-flows", "v1.0.0")):
        copy(tmp_path, f"{registry}/{name}:{tag}")

    with pytest.raises(ReleaseError, match="postgres"):
        pin_release(component)  # not pushed yet
    copy(tmp_path, f"{registry}/postgres:{image['newTag']}")
    pinned = pin_release(component)

    (digest,) = [
        one["digest"]
        for one in json.loads((tmp_path / "image" / "index.json").read_text())["manifests"]
    ]
    assert pinned == [
        f"{registry}/{name}@{digest}" for name in ("mhras-api", "mhras-flows", "postgres")
    ]
    assert read_image(component, "mhras-api")["digest"] == digest


def copy(folder: Path, target: str) -> None:
    command = ["skopeo", "--policy", str(folder / "policy.json"), "copy"]
    command += [f"oci:{folder / 'image'}", f"docker://{target}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
