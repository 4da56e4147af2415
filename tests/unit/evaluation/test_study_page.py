"""The page as a participant uses it, in a real Chromium: with the keyboard in English, by touch in Japanese."""

import csv
import json
import re
import time

import numpy as np
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from deid.errors import InputError
from deid.evaluation.study import make
from deid.evaluation.study import questions as q
from deid.evaluation.study.score import score
from tests import browsing
from tests.unit.evaluation import study_people

SMALLEST = 44  # CSS px, of what is touched
CONTRAST = 4.5
JAPANESE = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")

# Text, width and height in CSS pixels of all that is there to be touched.
SIZES = """
return [...document.querySelectorAll("button, summary, #consent-label")].filter((e) => e.checkVisibility()).map(
  (e) => [e.textContent, e.getBoundingClientRect().width, e.getBoundingClientRect().height]);
"""

# Answer everything wrongly and press twice each time: the second press comes too early to count for the next question.
CLICK_THROUGH = """
const [truth, done] = arguments;
const step = () => {
  const task = order[state.answers.length];
  if (!task) return done(state.answers.length);
  if (performance.now() - shownAt > LOCK) {
    const press = () => [...document.querySelectorAll("#answers button")].find(
      (b) => b.dataset.option !== truth[order[state.answers.length].id]).click();
    const before = state.answers.length;
    press();
    if (order[before + 1]) press();
    if (state.answers.length !== before + 1) return done("counted twice");
  }
  setTimeout(step, 20);
};
step();
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Page and key of a small study of people who do not exist, with faces that stand in for heads."""
    heads, rng = study_people.heads(9), np.random.default_rng(4)
    for n, head in enumerate(heads[:4]):
        object.__setattr__(head, "source", study_people.portrait(n // 2, n % 2))
    content, key = make.assemble(heads, make.tasks.draw(heads, 10, False, rng), rng)
    folder = tmp_path_factory.mktemp("page")
    (folder / make.PAGE).write_bytes(make.page(content, "en", "Ada <ada@example.org>"))
    (folder / make.KEY).write_text(json.dumps(key))
    return folder


@pytest.fixture
def browser(study, tmp_path):
    with browsing.open_browser(tmp_path) as opened:
        opened.execute_cdp_cmd(
            "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path / "saved")}
        )
        yield opened


@pytest.fixture
def key(study):
    return json.loads((study / make.KEY).read_text())["tasks"]


def go(browser, study):
    browsing.complaints(browser), browsing.requests(browser)
    browser.get((study / make.PAGE).as_uri())


def shown(browser, name):
    return browser.find_element(By.ID, name).is_displayed()


def press(browser, *keys):
    ActionChains(browser).send_keys(*keys).perform()


def ready(browser):
    """Wait until an answer counts; the task that is asked, as the page knows it."""
    WebDriverWait(browser, 10, 0.02).until(
        lambda b: b.execute_script("return performance.now() - shownAt > LOCK")
    )
    return browser.execute_script("return order[state.answers.length]")


def answered(browser):
    return browser.execute_script("return state.answers.length")


def saved(tmp_path):
    """The file that the page saved, when it is whole."""
    for _ in range(100):
        found = list((tmp_path / "saved").glob("*.csv"))
        if found and found[0].stat().st_size:
            return found[0]
        time.sleep(0.05)
    pytest.fail("no file was saved")


def rows_of(path):
    data = path.read_bytes()
    assert data.startswith(b"\xef\xbb\xbf"), "spreadsheets take a CSV for UTF-8 by its byte order mark"
    rows = list(csv.DictReader(data.decode("utf-8-sig").splitlines()))
    assert list(rows[0]) == list(q.COLUMNS)
    return rows


def tap(browser, element):
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    box = browser.execute_script(
        "const r = arguments[0].getBoundingClientRect(); return [r.x, r.y, r.width, r.height]", element
    )
    point = {"x": box[0] + box[2] / 2, "y": box[1] + box[3] / 2}
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def assert_quiet(browser, study):
    """Nothing in the console, and nothing was asked of any network: the page's own file alone."""
    assert browsing.complaints(browser) == []
    asked = [url for url in browsing.requests(browser) if not url.startswith("blob:")]
    assert set(asked) == {(study / make.PAGE).as_uri()}


def assert_readable(browser):
    found = browser.execute_script(browsing.CONTRAST)
    assert found
    assert found[0][1] >= CONTRAST, found[0]


def begin_by_keyboard(browser):
    assert not browser.find_element(By.ID, "begin").is_enabled(), "consent comes first"
    while browser.switch_to.active_element.get_attribute("id") != "consent":
        press(browser, Keys.TAB)
    press(browser, Keys.SPACE, Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("id") == "begin"
    outline = browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "the focus is seen"
    press(browser, Keys.ENTER)


def answer_by_keyboard(browser, option, task, by_arrows):
    place = task["options"].index(option)
    if by_arrows:
        press(browser, *[Keys.ARROW_RIGHT] * (place + 1))
        assert browser.switch_to.active_element.get_attribute("data-option") == option
        press(browser, Keys.ENTER)
    else:
        press(browser, str(place + 1))


def test_to_the_end_by_keyboard_in_english(browser, study, key, tmp_path):
    browsing.size(browser, 1000, 800)
    go(browser, study)
    assert "Ada <ada@example.org>" in browser.find_element(By.ID, "about").text
    assert_readable(browser)
    begin_by_keyboard(browser)
    for number in range(len(key)):
        task = ready(browser)
        assert browser.find_element(By.ID, "count").text == f"{number + 1} of {len(key)}"
        alts = [
            image.get_attribute("alt") for image in browser.find_elements(By.CSS_SELECTOR, "#pictures img")
        ]
        assert alts == {0: [], 1: ["Picture"], 2: ["Left picture", "Right picture"]}[len(task["pictures"])]
        if number == 2:
            pause_and_help(browser)
        if number == 4:
            task = leave_and_come_back(browser, study, task)
        answer_by_keyboard(browser, key[task["id"]]["truth"] or "smiling", task, number % 2)
        assert answered(browser) == number + 1
        if number < 3:
            assert_readable(browser)
    assert shown(browser, "end")
    assert_readable(browser)
    assert_kept_until_saved(browser, "Save your answers first")
    press(browser, Keys.TAB, Keys.ENTER)  # from the title to the button that saves
    file = saved(tmp_path)
    rows = rows_of(file)
    check_rows(rows, key, "en")
    assert file.name == f"study-answers-{rows[0]['participant']}.csv"
    assert (
        browser.find_element(By.ID, "copy").get_attribute("value").splitlines()
        == file.read_text("utf-8-sig").splitlines()
    )
    section = score(study / make.KEY, [file], np.random.default_rng(0), 100)
    figures = {t.id: t.rows for t in section.tables}
    assert figures["study.real"]["all"]["right"].value == 1
    assert figures["study.same"][q.CONDITIONS[q.CONTROL]]["same"].value == 1
    assert_quiet(browser, study)
    browser.find_element(By.ID, "forget").click()
    assert shown(browser, "start")
    assert browser.execute_script("return localStorage.length") == 0


def assert_kept_until_saved(browser, reason):
    """Answers that nobody has outside the page cannot be removed, and the page says why."""
    forget = browser.find_element(By.ID, "forget")
    assert not forget.is_enabled()
    browser.execute_script("arguments[0].click()", forget)
    assert shown(browser, "end")
    assert browser.find_element(By.ID, forget.get_attribute("aria-describedby")).text.startswith(reason)


def pause_and_help(browser):
    """No time passes and no answer counts in a pause, nor while the help is open."""
    for opening, closing, name in (("p", "p", "paused"), ("h", Keys.ESCAPE, "help")):
        press(browser, opening)
        assert shown(browser, name)
        before = browser.execute_script("return clock.now")
        press(browser, "1")
        time.sleep(0.3)
        assert browser.execute_script("return clock.now") == before
        press(browser, closing)
        assert not shown(browser, name)
    assert answered(browser) == 2


def leave_and_come_back(browser, study, task):
    participant = browser.execute_script("return state.participant")
    browser.get((study / make.PAGE).as_uri())
    assert browser.find_element(By.ID, "begin").text == "Go on at question 5"
    assert browser.execute_script("return state.participant") == participant
    begin_by_keyboard(browser)
    again = ready(browser)
    assert again == task, "the order is the participant's"
    return again


def check_rows(rows, key, language):
    assert [int(row["position"]) for row in rows] == list(range(1, len(key) + 1))
    assert {row["task"] for row in rows} == set(key)
    assert len({row["participant"] for row in rows}) == 1
    assert {(row["language"], row["page"]) for row in rows} == {(language, rows[0]["page"])}
    for row in rows:
        pictures, options = row["shown"].split(" | ")
        assert row["kind"] == key[row["task"]]["kind"]
        assert set(options.split(" / ")) == set(q.QUESTIONS[row["kind"]].options)
        assert len(pictures.split()) == (2 if row["kind"] == "same" else row["kind"] != "press")
        assert 200 <= int(row["milliseconds"]) < 60_000


def test_to_the_end_by_touch_in_japanese_on_a_phone(browser, study, key, tmp_path):
    """Where the browser lets the page keep nothing, too."""
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    nothing = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('', 'SecurityError'); }});"
    browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": nothing})
    browsing.size(browser, 390, 800)
    go(browser, study)
    assert "keep it open" in browser.find_element(By.ID, "no-memory").text
    tap(browser, browser.find_element(By.ID, "language"))
    assert browser.execute_script("return document.documentElement.lang") == "ja"
    assert_fits(browser)
    tap(browser, browser.find_element(By.ID, "consent-text"))
    tap(browser, browser.find_element(By.ID, "begin"))
    for number in range(len(key)):
        task = ready(browser)
        assert_fits(browser)
        assert JAPANESE.search(browser.find_element(By.ID, "question").text)
        truth = key[task["id"]]
        wrong = next(option for option in task["options"] if option != truth["truth"])
        option = truth["truth"] if truth["check"] else wrong
        tap(browser, browser.find_element(By.CSS_SELECTOR, f"#answers [data-option='{option}']"))
        WebDriverWait(browser, 5, 0.02).until(lambda b, n=number: answered(b) == n + 1)
    assert_fits(browser)
    assert_readable(browser)
    assert_kept_until_saved(browser, "先に回答を保存")
    tap(browser, browser.find_element(By.ID, "save"))
    WebDriverWait(browser, 5, 0.02).until(lambda b: b.find_element(By.ID, "forget").is_enabled())
    rows = rows_of(saved(tmp_path))
    check_rows(rows, key, "ja")
    section = score(study / make.KEY, [saved(tmp_path)], np.random.default_rng(0), 100)
    figures = {t.id: t.rows for t in section.tables}
    assert section.data["dropped"] == 0
    assert figures["study.real"]["all"]["right"].value == 0
    assert figures["study.same"][q.CONDITIONS[q.CONTROL]]["same"].value == 0
    assert_quiet(browser, study)


def assert_fits(browser):
    """No sideways scrolling, and all that is touched is large enough."""
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    sizes = browser.execute_script(SIZES)
    assert len(sizes) >= 3
    for text, width, height in sizes:
        assert min(width, height) >= SMALLEST, text


def test_order_and_sides_differ_between_participants(browser, study, key):
    go(browser, study)
    script = (
        "return arguments[0].map((who) => ordered(who).map((t) => [t.kind, t.id, t.pictures, t.options]))"
    )
    orders = browser.execute_script(script, [f"{n:016x}" for n in range(60)])
    again = browser.execute_script(script, ["0" * 16])
    assert orders[0] == again[0]
    assert all({task[1] for task in order} == set(key) for order in orders)
    assert len({str(order) for order in orders}) == 60
    first = [next(task[3][0] for task in order if task[0] == "real") for order in orders]
    assert 15 < first.count("real") < 45
    pair = next(task[1] for task in orders[0] if task[0] == "same" and task[2][0] != task[2][1])
    left = [next(task[2][0] for task in order if task[1] == pair) for order in orders]
    assert 15 < left.count(left[0]) < 45
    places = [[task[1] for task in order].index(pair) for order in orders]
    assert np.std(places) > 3
    for order in orders:  # visible checks are spread: never are all of them in one half
        checks = [n for n, task in enumerate(order) if task[0] in q.CHECKS]
        assert min(checks) < len(order) / 2 < max(checks)


def test_who_clicks_through_is_dropped(browser, study, key, tmp_path):
    browsing.size(browser, 1000, 800)
    go(browser, study)
    browser.find_element(By.ID, "consent").click()
    browser.find_element(By.ID, "begin").click()
    assert browser.execute_async_script(
        CLICK_THROUGH, {name: task["truth"] for name, task in key.items()}
    ) == len(key)
    browser.find_element(By.ID, "save").click()
    with pytest.raises(InputError, match="no participant of 1 passed the attention checks"):
        score(study / make.KEY, [saved(tmp_path)], np.random.default_rng(0))


def test_a_copy_of_all_answers_counts_as_saved(browser, study):
    go(browser, study)
    browser.execute_script("finish(); document.querySelector('details').open = true;")
    copy, forget = (browser.find_element(By.ID, name) for name in ("copy", "forget"))
    part = "const c = arguments[0]; c.focus(); c.setSelectionRange(0, 4); c.dispatchEvent(new Event('copy'));"
    browser.execute_script(part, copy)
    assert not forget.is_enabled()
    copy.send_keys(Keys.CONTROL, "a"), copy.send_keys(Keys.CONTROL, "c")
    assert forget.is_enabled()
    assert browser.execute_script("return JSON.parse(localStorage.getItem(NAME)).saved")


def test_nothing_moves_for_those_who_ask_for_it(browser, study):
    reduce = {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", reduce)
    go(browser, study)
    script = "return getComputedStyle(document.getElementById('help-open')).transitionDuration"
    assert browser.execute_script(script) in ("0s", "0")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert browser.execute_script(script) == "0.1s"
