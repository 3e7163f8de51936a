"""The site: it builds without a warning, has every public name, needs no other host, and reads well on a desktop and on a phone."""

from __future__ import annotations

import functools
import http.server
import importlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = ["ops", "nn", "models", "testing", "symmetrize", "cloning", "pga", "sl2", "relaxation", "data", "groups", "scaling"]
PAGES = ["", "quickstart/", "operators/", "coming_from/escnn/", "reference/nn/", "systems/", "benchmarks/"]
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
WORDS = ["bank", "transvectant", "multivector", "GroupConv2d", "permutation"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("material", "mkdocstrings", "latex2mathml"):
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr, result.stderr
    return folder


def names(module: str) -> list[str]:
    """The public names of isotypic.<module>: __all__, and for a package without one its modules."""
    found = importlib.import_module(f"isotypic.{module}")
    if hasattr(found, "__all__"):
        return list(found.__all__)
    assert found.__file__
    return [path.stem for path in Path(found.__file__).parent.glob("[!_]*.py")]


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_on_a_page(site: Path, module: str) -> None:
    page = (site / "reference" / module / "index.html").read_text()
    missing = [name for name in names(module) if f'id="isotypic.{module}.{name}"' not in page]
    assert not missing
    # The heading is followed by what the docstring says.
    assert page.count('<div class="doc doc-contents') >= len(names(module))


def test_each_operator_has_its_formula() -> None:
    ops = importlib.import_module("isotypic.ops")
    functions = {name for name in ops.__all__ if not isinstance(getattr(ops, name), type)}
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^#|\Z)", (ROOT / "docs" / "operators.md").read_text(), flags=re.MULTILINE | re.DOTALL))
    assert functions == set(sections)
    assert [name for name, text in sections.items() if "$" not in text] == ["weight_layout"]


def test_formulas_are_mathml(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert not re.search(r'class="arithmatex">\s*\\[(\[]', text), page
    assert (site / "operators" / "index.html").read_text().count("<math") > 40


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|srcset|href)="(https?:)?//[^"]*"', page.read_text())
        assert not loaded, f"{page}: {loaded}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(\s*[\"']?(?:https?:)?//|@import\s+[\"'](?:https?:)?//", sheet.read_text()), sheet


def test_the_site_is_small(site: Path) -> None:
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < 20e6


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    handler = functools.partial(Silent, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no Chromium with its driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    found.set_page_load_timeout(60)
    yield found
    found.quit()


CONTRAST = """
const luminance = c => {
  const [r, g, b] = c.map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b;
};
const parse = s => { const v = s.match(/[\\d.]+/g).map(Number); return v.length < 4 ? [...v, 1] : v };
const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]));
const behind = e => {
  const layers = [];
  for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c[3] > 0) layers.push(c);
    if (c[3] === 1) break;
  }
  return layers.reduceRight((below, c) => over(c, below), [255, 255, 255]);
};
const low = [];
const walker = document.createTreeWalker(document.querySelector('article'), NodeFilter.SHOW_TEXT);
for (let n; n = walker.nextNode();) {
  const e = n.parentElement, style = getComputedStyle(e);
  if (!n.data.trim() || !e.getClientRects().length || e.closest('.headerlink')) continue;
  if (style.visibility === 'hidden' || style.opacity === '0') continue;
  const below = behind(e), text = over(parse(style.color), below);
  const [a, b] = [luminance(text), luminance(below)].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
  const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
  if (ratio < (large ? 3 : 4.5)) low.push(n.data.trim().slice(0, 30) + ' ' + style.color + ' ' + ratio.toFixed(2));
}
return low;
"""
"""Text of the page whose contrast is below that of WCAG's level AA."""


def resize(browser: Any, size: str) -> None:
    width, height = SIZES[size]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "light"), ("phone", "dark")])
def test_pages_on_a_screen(address: str, browser: Any, size: str, scheme: str, tmp_path: Path) -> None:
    resize(browser, size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    browser.get(address)
    browser.execute_script("localStorage.clear()")  # the choice of a scheme
    folder = Path(os.environ.get("ISOTYPIC_SCREENSHOTS", tmp_path))
    for page in PAGES:
        browser.get(address + page)
        wide, window = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
        assert wide <= window, f"{page or 'home'}: {wide} pixels wide on a screen of {window}"
        broken = browser.execute_script("return [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)")
        assert not broken, f"{page or 'home'}: {broken}"
        low = browser.execute_script(CONTRAST)
        assert not low, f"{page or 'home'}: too little contrast: {low[:10]}"
        loaded = browser.execute_script("return performance.getEntriesByType('resource').map(r => r.name)")
        assert all(resource.startswith((address, "data:", "blob:")) for resource in loaded), loaded
        target = folder / f"{(page.strip('/') or 'home').replace('/', '-')}-{size}-{scheme}.png"
        assert browser.save_screenshot(str(target)) and target.stat().st_size > 10_000
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not errors, errors


def test_the_search_finds(address: str, browser: Any) -> None:
    by = pytest.importorskip("selenium.webdriver.common.by").By
    wait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait(browser, 30)
    resize(browser, "desktop")
    for word in WORDS:
        browser.get(address)
        field = browser.find_element(by.CSS_SELECTOR, "input.md-search__input")
        browser.execute_script("arguments[0].focus()", field)
        field.send_keys(word)
        found = wait.until(lambda b: b.find_elements(by.CSS_SELECTOR, "li.md-search-result__item"))
        texts = [item.get_attribute("textContent").lower() for item in found]
        assert any(word.lower() in text for text in texts), word
