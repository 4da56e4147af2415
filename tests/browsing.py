"""A real Chromium, driven as a reader drives it; for tests of pages."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

# Pairs of text and contrast (WCAG 2.2, 1.4.3) of every text that is seen, the least first. Backgrounds are the colours
# of the elements around, laid over each other; a page with pictures behind text needs another way.
CONTRAST = """
const numbers = text => text.match(/[\\d.]+/g).map(Number);
const over = (top, below) => below.map((v, i) => top[i] * (top[3] ?? 1) + v * (1 - (top[3] ?? 1)));
const light = colour => colour.slice(0, 3)
  .map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode, parent = node.parentElement;
  if (!node.data.trim() || ["SCRIPT", "STYLE"].includes(parent.tagName)) continue;
  const range = document.createRange();
  range.selectNodeContents(node);
  if (!range.getClientRects().length || getComputedStyle(parent).visibility !== "visible") continue;
  const around = [];
  for (let e = parent; e; e = e.parentElement) around.unshift(numbers(getComputedStyle(e).backgroundColor));
  const below = around.reduce((sum, colour) => over(colour, sum), [255, 255, 255]);
  const ink = over(numbers(getComputedStyle(parent).color), below);
  const [dark, bright] = [light(ink), light(below)].sort((a, b) => a - b);
  found.push([node.data.trim().slice(0, 60), (bright + 0.05) / (dark + 0.05)]);
}
return found.sort((a, b) => a[1] - b[1]);
"""


@contextlib.contextmanager
def open_browser(folder: Path) -> Iterator[webdriver.Chrome]:
    """A headless Chromium with a fresh profile below this folder, that logs its console and its network.

    Where there is none the test is skipped, and fails on CI.
    """
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not browser or not driver:
        reason = "no chromium and chromedriver here; `make browser` installs them"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for argument in (
        "--headless=new",
        "--no-sandbox",  # which needs user namespaces, that a container may not have
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--no-first-run",
        "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}",
    ):
        options.add_argument(argument)
    with webdriver.Chrome(options, Service(driver)) as opened:
        opened.get("about:blank")
        requests(opened)  # of the page for a new tab
        yield opened


def size(browser: webdriver.Chrome, width: int, height: int = 900) -> None:
    """Make the page as wide and as high in CSS pixels, on a screen of one device pixel each."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def media(browser: webdriver.Chrome, kind: str) -> None:
    """As on "screen" or in "print"."""
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind})


def requests(browser: webdriver.Chrome) -> list[str]:
    """URLs that were asked for since the last call, but for data inside of the page."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in sent if not url.startswith("data:")]


def complaints(browser: webdriver.Chrome) -> list[dict[str, Any]]:
    """What the console said since the last call."""
    return list(browser.get_log("browser"))
