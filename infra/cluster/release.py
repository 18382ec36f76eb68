"""Which images run: ``python -m infra.cluster.release set v1.1.0`` and ``... release pin``.

Both write infra/k8s/components/release. `pin` asks the registry for the digest of each image, so
that what was tested is what runs, whatever is pushed under the same tag later; it needs skopeo
(Debian's package) and the registry's login in the usual place.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import yaml

COMPONENT = Path(__file__).resolve().parents[1] / "k8s" / "components" / "release"
OURS = ("mhras-api", "mhras-flows")

app = typer.Typer(
    help="Which images run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)


class ReleaseError(RuntimeError):
    """A version or an image cannot be used; the message names it and the reason."""


def set_release(component: Path, version: str, registry: str | None = None) -> None:
    """Write the version of our two images, and the suffix of the Jobs' names.

    Raises ReleaseError for a version that is no tag and no part of a Job's name.
    """
    suffix = version.lower().replace(".", "-")
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", suffix):
        raise ReleaseError(f"{version}: letters, digits, dots and dashes, at most 32 of them")
    release = component / "release.yaml"
    text = re.sub(r"^  version: .*$", f"  version: {version}", release.read_text(), flags=re.M)
    release.write_text(re.sub(r"^  suffix: .*$", f"  suffix: {suffix}", text, flags=re.M))
    for name in OURS:
        image = read_image(component, name)
        place = f"{registry}/{name}" if registry else image["newName"]
        write_image(component, {"name": name, "newName": place, "newTag": version})


def pin_release(component: Path) -> list[str]:
    """Add the digest of every image; return `name@digest` of each."""
    pinned = []
    for image in read_images(component):
        digest = find_digest(f"{image['newName']}:{image['newTag']}")
        write_image(component, image | {"digest": digest})
        pinned.append(f"{image['newName']}@{digest}")
    return pinned


def find_digest(reference: str) -> str:
    """Return the digest of an image's manifest (for several architectures, of their list).

    Raises ReleaseError.
    """
    if shutil.which("skopeo") is None:
        raise ReleaseError("skopeo is not installed: apt-get install skopeo")
    # Without a format skopeo would also list every tag of the repository.
    command = ["skopeo", "inspect", "--format", "{{.Digest}}", f"docker://{reference}"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if asked.returncode:
        reason = asked.stderr.strip().rpartition("\n")[2]
        raise ReleaseError(f"{reference}: {reason}")
    return asked.stdout.strip()


def read_images(component: Path) -> list[dict[str, Any]]:
    text = (component / "kustomization.yaml").read_text()
    images: list[dict[str, Any]] = yaml.safe_load(text)["images"]
    return images


def read_image(component: Path, name: str) -> dict[str, Any]:
    (image,) = [image for image in read_images(component) if image["name"] == name]
    return image


def write_image(component: Path, image: dict[str, Any]) -> None:
    """Replace the line of an image; the file's comments stay."""
    path = component / "kustomization.yaml"
    fields = ", ".join(f"{name}: {value}" for name, value in image.items())
    line = re.compile(rf"^  - {{name: {re.escape(image['name'])}, .*}}$", re.MULTILINE)
    path.write_text(line.sub(f"  - {{{fields}}}", path.read_text()))


@app.command("set")
def run_set(
    version: Annotated[str, typer.Argument(help="Tag of both images.")],
    registry: Annotated[str | None, typer.Option(help="Registry and path of both.")] = None,
) -> None:
    """Write which version runs."""
    try:
        set_release(COMPONENT, version, registry)
    except ReleaseError as error:
        _stop(str(error))
    sys.stdout.write(f"{version} is written; `release pin` adds the digests\n")


@app.command("pin")
def run_pin() -> None:
    """Ask the registry for each image's digest and write it."""
    try:
        pinned = pin_release(COMPONENT)
    except ReleaseError as error:
        _stop(str(error))
    sys.stdout.write("\n".join(pinned) + "\n")


def _stop(reason: str) -> NoReturn:
    sys.stderr.write(f"{reason}\n")
    raise typer.Exit(1)


if __name__ == "__main__":
    app()
