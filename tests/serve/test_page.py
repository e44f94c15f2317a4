"""The page is one file that needs nothing from elsewhere, and its policy lets the browser run nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from rm_gallery.core.serve.page import load_page


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, {name: value or "" for name, value in attrs}))


@pytest.fixture(scope="module")
def page():
    return load_page()[0]


@pytest.fixture(scope="module")
def elements(page):
    return Elements(page).found


def test_it_is_served_with_its_policy(pointwise):
    response = pointwise.http.get("/")
    text, headers = load_page()
    assert response.text == text
    assert response.headers["Content-Security-Policy"] == headers["Content-Security-Policy"]
    assert response.headers["Content-Type"].startswith("text/html")


def test_the_policy_allows_its_own_script_and_style_and_nothing_else(page):
    rules = dict(rule.split(" ", 1) for rule in load_page()[1]["Content-Security-Policy"].split("; "))
    for tag in ("script", "style"):
        [content] = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["frame-ancestors"] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert "unsafe" not in str(rules)


def test_nothing_comes_from_elsewhere_and_nothing_stands_in_attributes(page, elements):
    assert not re.search(r"https?://|//[\w.]+/|@import|url\(", page)
    for _, attributes in elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        assert attributes.get("href", "data:,") == "data:,"
        assert "src" not in attributes


def test_text_is_never_taken_for_markup_and_nothing_is_stored(page):
    for name in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
        assert name not in page
    for name in ("localStorage", "sessionStorage", "indexedDB", "document.cookie"):
        assert name not in page


def test_every_field_has_its_label(elements):
    labels = {attributes["for"] for tag, attributes in elements if tag == "label"}
    fields = {attributes["id"] for tag, attributes in elements if tag in ("input", "textarea", "select")}
    assert fields == labels
    assert ("html", {"lang": "en"}) in elements
    assert any(attributes.get("aria-live") == "polite" for _, attributes in elements)
    [key] = [attributes for tag, attributes in elements if tag == "input"]
    assert (key["type"], key["autocomplete"]) == ("password", "off")


def test_it_fits_a_narrow_screen_and_a_dark_one(page, elements):
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in elements
    assert "prefers-color-scheme: dark" in page


def test_the_ids_that_the_script_asks_for_are_there(page, elements):
    ids = {attributes["id"] for _, attributes in elements if "id" in attributes}
    assert set(re.findall(r'\bat\("([\w-]+)"\)', page)) <= ids
