"""The report in a real browser, opened from disk as its reader opens it."""

import base64
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from deid.evaluation import report
from tests import browsing
from tests.unit.evaluation import reporting


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    sheets = [(f"Fictional people, {n}", reporting.picture(900, 400, seed=n)) for n in range(2)]
    extra = {"sheets": sheets, "method_png": reporting.picture(900, 300, kind="PNG")}
    report.write(reporting.sections(), reporting.evaluation(), reporting.about() | extra, str(folder))
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with browsing.open_browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def opened(browser: webdriver.Chrome, page: Path) -> webdriver.Chrome:
    """The page at the top, on a desk's screen, with every table folded out."""
    browsing.media(browser, "screen")
    browsing.size(browser, 1280)
    browser.get(page.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    return browser


def test_it_opens_from_disk_and_asks_for_nothing(browser: webdriver.Chrome, page: Path) -> None:
    browsing.requests(browser)
    browsing.complaints(browser)
    browser.get(page.as_uri())
    assert browser.title == reporting.about()["title"]
    assert browsing.requests(browser) == [page.as_uri()]
    assert browsing.complaints(browser) == []
    assert page.stat().st_size < 10e6


def test_its_policy_lets_nothing_out(opened: webdriver.Chrome) -> None:
    """Even a picture, a script and a style that somebody got into it."""
    refused = opened.execute_async_script(
        """
        const done = arguments[0], refused = [];
        document.addEventListener("securitypolicyviolation", e => refused.push(e.effectiveDirective));
        const add = (tag, set) => document.body.append(Object.assign(document.createElement(tag), set));
        add("img", {src: "https://example.invalid/a.png"});
        add("script", {textContent: "window.ran = true"});
        add("style", {textContent: "body { display: none }"});
        fetch("https://example.invalid/b").catch(() => {});
        setTimeout(() => done([refused.sort(), window.ran === undefined]), 300);
        """
    )
    assert refused == [["connect-src", "img-src", "script-src-elem", "style-src-elem"], True]
    browsing.complaints(opened)
    browsing.requests(opened)


def test_every_picture_is_there_and_said_in_words(opened: webdriver.Chrome) -> None:
    pictures = opened.execute_script(
        "return [...document.images].map(i => [i.naturalWidth, i.width, i.height, i.naturalHeight, i.alt])"
    )
    assert len(pictures) == 4 + 1 + 2  # plots, method, sheets
    for natural, width, height, natural_height, alt in pictures:
        assert natural > 0
        assert height / width == pytest.approx(natural_height / natural, abs=0.02)
        assert len(alt) > 10


@pytest.mark.parametrize("kind", ["screen", "print"])
def test_every_text_has_contrast(opened: webdriver.Chrome, kind: str) -> None:
    browsing.media(opened, kind)
    found = opened.execute_script(browsing.CONTRAST)
    assert len(found) > 1000
    assert [(text, ratio) for text, ratio in found if ratio < 4.5] == []


def test_the_check_of_contrast_sees_a_faint_text(opened: webdriver.Chrome) -> None:
    opened.execute_script("document.querySelector('h1').style.setProperty('color', '#999')")
    text, ratio = opened.execute_script(browsing.CONTRAST)[0]
    assert text == reporting.about()["title"][:60]
    assert ratio == pytest.approx(2.85, abs=0.01)  # of #999 on white


@pytest.mark.parametrize("width", [320, 390, 834, 1280, 1600])
def test_nothing_runs_out_at_the_side(opened: webdriver.Chrome, width: int) -> None:
    browsing.size(opened, width)
    wide = opened.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width
    over = opened.execute_script(
        """
        const inside = e => e.closest(".scroll") && !e.matches(".scroll") || e.closest(".unseen, .skip");
        return [...document.body.querySelectorAll("*")]
          .filter(e => !inside(e) && e.getBoundingClientRect().right > innerWidth + 1)
          .map(e => e.outerHTML.slice(0, 80));
        """
    )
    assert over == []


def test_no_figure_is_cut_off_on_a_desk(opened: webdriver.Chrome) -> None:
    cut = opened.execute_script(
        "return [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1)"
        ".map(e => [e.ariaLabel, e.scrollWidth, e.clientWidth])"
    )
    assert cut == []


def test_headings_go_down_one_at_a_time(opened: webdriver.Chrome) -> None:
    levels = opened.execute_script(
        "return [...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(e => +e.tagName[1])"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_it_says_its_language_and_its_parts(opened: webdriver.Chrome) -> None:
    assert opened.execute_script("return document.documentElement.lang") == "en"
    assert len(opened.find_elements(By.TAG_NAME, "main")) == 1
    links = opened.find_elements(By.CSS_SELECTOR, "nav a")
    assert len(links) == 14
    for link in links:
        link.click()
        name = opened.execute_script("return decodeURIComponent(location.hash.slice(1))")
        assert opened.find_element(By.ID, name).is_displayed()


def test_a_light_is_a_word_and_a_shape_too(opened: webdriver.Chrome) -> None:
    badges = opened.find_elements(By.CSS_SELECTOR, ".five .badge")
    said = [badge.text for badge in badges]
    assert said == ["met", "met", "met", "missed", "met"]
    shapes = [
        re.sub(r"\s+", "", badge.find_element(By.TAG_NAME, "svg").get_attribute("innerHTML"))
        for badge in badges
    ]
    assert shapes[0] == shapes[1]
    assert shapes[0] != shapes[3]


def test_tables_can_be_opened_and_scrolled_by_keyboard(browser: webdriver.Chrome, page: Path) -> None:
    browsing.size(browser, 390)
    browser.get(page.as_uri())
    summary = browser.find_element(By.CSS_SELECTOR, "summary")
    assert not summary.find_element(By.XPATH, "..").get_attribute("open")
    browser.execute_script("arguments[0].focus()", summary)
    summary.send_keys(Keys.ENTER)
    assert summary.find_element(By.XPATH, "..").get_attribute("open")
    region = summary.find_element(By.XPATH, "../*[contains(@class, 'scroll')]")
    browser.execute_script("arguments[0].focus()", region)
    assert browser.switch_to.active_element == region
    assert region.get_attribute("aria-label")
    before = region.find_element(By.TAG_NAME, "table").rect["x"]
    region.send_keys(Keys.ARROW_RIGHT)
    moved = browser.execute_async_script(
        "const [e, done] = arguments; setTimeout(() => done(e.scrollLeft), 500)", region
    )
    assert moved > 0
    assert before > region.find_element(By.TAG_NAME, "table").rect["x"] - moved - 1


def test_the_first_tab_leads_to_the_contents(browser: webdriver.Chrome, page: Path) -> None:
    browser.get(page.as_uri())
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("href").endswith("#contents")
    assert browser.switch_to.active_element.rect["x"] >= 0


def test_it_prints_with_every_table_open_and_the_first_page_alone(
    browser: webdriver.Chrome, page: Path
) -> None:
    browser.get(page.as_uri())
    browsing.media(browser, "print")
    browsing.size(browser, 696)  # A4 less the margins
    folded = browser.find_elements(By.CSS_SELECTOR, "details:not([open]) tbody tr")
    assert len(folded) > 100
    assert all(row.rect["height"] > 5 for row in folded[::20])
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 696
    settings: dict[str, Any] = {"printBackground": True, "preferCSSPageSize": True}
    data = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", settings)["data"])
    assert data.startswith(b"%PDF-")
    sizes = {tuple(map(float, found)) for found in re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", data)}
    assert {(round(width), round(height)) for width, height in sizes} == {(595, 842)}  # A4, points
    assert len(re.findall(rb"/Type /Page\b", data)) < 40


def test_the_first_page_fits_one_sheet_of_paper(browser: webdriver.Chrome, page: Path) -> None:
    browser.get(page.as_uri())
    browsing.media(browser, "print")
    browsing.size(browser, 696)
    height = browser.find_element(By.ID, "verdict").rect["height"]
    assert height < (297 - 14 - 15) / 25.4 * 96
