"""Writes the style sheet and icons of nhsuk-frontend into serving/console/static.

    python -m tests.serving.console.vendor_assets

Needs npm, which fetches the package; nothing of it is needed to build or run. Frutiger and the
NHS logo are licensed to NHS services alone, so the font faces are left out. The manifest beside
the files names the version and each file's SHA-256; a test compares them.
"""

import hashlib
import json
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

PACKAGE, VERSION = "nhsuk-frontend", "10.6.1"
STATIC = Path(__file__).resolve().parents[3] / "serving" / "console" / "static"
STYLE_SHEET = "nhsuk-frontend.css"
MANIFEST = "nhsuk-frontend.json"

FONT_FACE = re.compile(r"@font-face\{[^}]*\}")
ICON = re.compile(r"url\(/assets/images/([a-z-]+\.svg)\)")


def strip_fonts(css: str) -> str:
    """Return the style sheet without the fonts of the NHS, icons beside it."""
    css = FONT_FACE.sub("", css).replace("Frutiger W01,", "")
    return ICON.sub(r"url(images/\1)", css)


def unpack(folder: str) -> tuple[str, dict[str, bytes]]:
    """Return the package's style sheet and the icons that it names."""
    command = ["npm", "pack", "--silent", f"{PACKAGE}@{VERSION}"]
    name = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    with tarfile.open(Path(folder) / name.strip()) as archive:

        def read(path: str) -> bytes:
            member = archive.extractfile(f"package/dist/nhsuk/{path}")
            assert member is not None, path
            return member.read()

        css = read("nhsuk-frontend.min.css").decode()
        icons = sorted(set(ICON.findall(css)))
        return css, {f"images/{icon}": read(f"assets/images/{icon}") for icon in icons}


def write() -> None:
    with tempfile.TemporaryDirectory() as folder:
        css, files = unpack(folder)
    files[STYLE_SHEET] = strip_fonts(css).encode()
    for name, content in files.items():
        (STATIC / name).parent.mkdir(parents=True, exist_ok=True)
        (STATIC / name).write_bytes(content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    manifest = {"package": PACKAGE, "version": VERSION, "licence": "MIT", "sha256": digests}
    (STATIC / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    write()
