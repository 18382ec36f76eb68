"""The console's files are those of their package, and load nothing from elsewhere."""

import hashlib
import json
import re

import pytest

from serving.console.assets import STATIC, list_assets
from serving.console.pages import load_templates
from tests.serving.console.vendor_assets import MANIFEST, STYLE_SHEET, strip_fonts


def test_the_files_are_those_of_the_package_by_their_digests():
    named = json.loads((STATIC / MANIFEST).read_text())["sha256"]

    assert named == {
        name: hashlib.sha256((STATIC / name).read_bytes()).hexdigest() for name in named
    }
    assert set(list_assets()) - set(named) == {"console.css", "icon.svg"}


def test_no_style_sheet_names_a_font_of_the_nhs_or_an_address_elsewhere():
    for path in STATIC.glob("*.css"):
        text = path.read_text()
        assert "Frutiger" not in text
        assert "http" not in text
        for target in re.findall(r"url\(([^)]+)\)", text):
            assert (STATIC / target).exists(), target


def test_fonts_are_stripped_and_icons_stand_beside_the_style_sheet():
    css = (
        "@font-face{font-family:Frutiger W01;src:url(https://x/y.woff2)}"
        "b{font-family:Frutiger W01,arial;background:url(/assets/images/nhsuk-icon-cross.svg)}"
    )

    assert strip_fonts(css) == "b{font-family:arial;background:url(images/nhsuk-icon-cross.svg)}"


@pytest.mark.parametrize("name", ["../pages.py", "nhsuk-frontend.json", "x.css", "%2e%2e/pages.py"])
def test_no_other_file_is_served(visit, name):
    assert visit().get(f"/console/static/{name}").status_code == 404


def test_a_style_sheet_is_served_to_be_kept(visit):
    answer = visit().get(f"/console/static/{STYLE_SHEET}")

    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/css")
    assert "max-age" in answer.headers["Cache-Control"]


def test_no_template_holds_a_script_or_a_style_of_its_own():
    environment = load_templates()
    for name in environment.list_templates(filter_func=lambda one: "/" not in one):
        source, _, _ = environment.loader.get_source(environment, name)
        assert "<script" not in source
        assert "style=" not in source
        assert not re.search(r"\son[a-z]+=", source), name
