"""The page is one file that needs nothing from elsewhere, and its policy lets the browser run nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from rm_gallery.core.serve.page import load_page
from rm_gallery.core.tasks import MultiDimensionTask
from tests.service import serving


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


# -- in a browser


def shown(tmp_path, page, running, path, item, width=1200):
    """The page as a browser has it once it has been given an item, and what the service says of it.

    The answers are the service's own, put in the place of the requests, which a file may not make.
    """
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs a browser: chromium or google-chrome")
    said = {"/v1/models": running.http.get("/v1/models").json()}
    said[path] = running.post(path, {"items": [item]}).json()
    canned = (
        f"<script>const SAID = {json.dumps(said)};"
        "window.fetch = async (path) => ({ok: true, json: async () => SAID[path]});</script>"
    )
    fields = {"query": "query", "response": "a", "response_a": "a", "response_b": "b"}
    typed = "".join(f"at('{fields[name]}').value = {json.dumps(text)};" for name, text in item.items())
    asks = f"<script>describe().then(() => {{ {typed} at('form').requestSubmit(); }});</script>"
    file = tmp_path / "page.html"
    file.write_text(page.replace("<script>", canned + "<script>", 1).replace("</body>", asks + "</body>"))
    words = [
        *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *(f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900"),
        *("--virtual-time-budget=3000", "--dump-dom", file.as_uri()),
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    return done.stdout, said[path]


def test_a_judge_of_one_response_is_given_one(tmp_path, page, pointwise, pairwise):
    """A second one is asked for where the judge compares, and folded away where it scores."""
    one, said = shown(tmp_path, page, pointwise, "/v1/score", {"query": "q", "response": "r"})
    assert re.search(r'<details id="second">', one), "closed"
    assert re.search(r'<label for="a"[^>]*>Response</label>', one)
    assert f"Score {said['results'][0]['score']:.3f}".rstrip("0") in one
    two, said = shown(
        tmp_path, page, pairwise, "/v1/compare", {"query": "q", "response_a": "r", "response_b": "s"}
    )
    assert re.search(r'<details id="second" open="">', two)
    assert re.search(r'<label for="a"[^>]*>Response A</label>', two)
    assert {"A": "Response A is better", "B": "Response B is better", "tie": "A tie"}[
        said["results"][0]["verdict"]
    ] in two


def test_of_several_dimensions_each_has_its_bars(tmp_path, page, tiny_model):
    task = MultiDimensionTask(dimensions={"help": 2, "style": {"scale": [-1, 1]}})
    with serving(tiny_model, task) as running:
        found, said = shown(tmp_path, page, running, "/v1/score", {"query": "q", "response": "r"})
    for name, alone in said["results"][0]["probabilities"].items():
        part = found.split(f"<h3>{name}</h3>")[1].split("</ul>")[0]
        assert re.findall(r"<li[^>]*><span[^>]*>(-?\d+)</span>", part) == sorted(alone, key=int)
        shares = [float(share) for share in re.findall(r"([\d.]+)%</span></li>", part)]
        assert shares == pytest.approx([100 * alone[name] for name in sorted(alone, key=int)], abs=0.1)
