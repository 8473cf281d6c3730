"""The page in a real Chromium: it works, asks for nothing, and can be read."""

from __future__ import annotations

import json
import shutil

import pytest

from msa_reports.gate_report import write_gate_report
from msa_reports.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH"),
    pytest.mark.skipif(DRIVER is None, reason="no chromedriver on the PATH"),
]
SWITCHES = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-default-apps", "--no-first-run", "--window-size=1280,1000",
)  # fmt: skip

# Contrast of every text against the colour behind it (WCAG 2, 1.4.3).
CONTRAST = """
const light = (c) => { const f = c.map((v) => { v /= 255;
    return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
  return .2126 * f[0] + .7152 * f[1] + .0722 * f[2]; };
const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
const behind = (node) => { for (; node; node = node.parentElement) {
    const c = rgb(getComputedStyle(node).backgroundColor);
    if (c.length === 3 || c[3] > 0) return c; } return [255, 255, 255]; };
const bad = [];
for (const node of document.querySelectorAll("body *")) {
  if (![...node.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
  if (!node.getClientRects().length || node.closest("script, option")) continue;
  const style = getComputedStyle(node);
  const a = light(rgb(node.closest("svg") ? style.fill : style.color)), b = light(behind(node));
  const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  if (ratio < 4.5) bad.push([node.tagName, node.textContent.slice(0, 40), ratio]);
}
return bad;
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for switch in (*SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture
def opened(driver, make_run, mixed):
    """Return a function that opens the page of a run and hands the driver back."""

    def open_(series=mixed, *, width=1280, dark=False, **kwargs):
        path = write_report(make_run(series, **kwargs)).html
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": [scheme]})
        driver.get_log("performance")
        driver.get_log("browser")
        driver.get(path.as_uri())
        return driver

    return open_


def _requests(driver):
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def _shown(driver):
    return driver.execute_script(
        "return [...document.querySelectorAll('table.series tbody tr')]"
        ".filter((r) => r.offsetParent !== null).map((r) => r.cells[0].dataset.v)"
    )


def _column(driver, table, column):
    return driver.execute_script(
        "return [...document.querySelectorAll('table.series')[arguments[0]].tBodies[0].rows]"
        ".map((r) => r.cells[arguments[1]].dataset.v)",
        table,
        column,
    )


def test_no_errors_and_no_requests_even_with_hostile_strings(opened, make_series, hostile, mixed):
    bad = make_series(name=hostile, suite=hostile, note=hostile, repro=hostile)
    driver = opened([*mixed, bad], text=hostile.replace("\ud800", ""))
    assert driver.get_log("browser") == []
    # The page itself and its empty icon.
    assert {url.split(":")[0] for url in _requests(driver)} <= {"file", "data"}
    assert driver.execute_script("return window.hit") is None
    assert driver.execute_script("return document.querySelectorAll('img').length") == 0
    assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_the_policy_stops_a_script_that_got_in(opened):
    driver = opened()
    driver.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.hit = 1';"
        "document.body.append(s); const d = document.createElement('div');"
        'd.innerHTML = \'<img src="https://example.invalid/x" onerror="window.hit=2">\';'
        "document.body.append(d);"
    )
    assert driver.execute_script("return window.hit") is None
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    failed = [m["params"] for m in messages if m["method"] == "Network.loadingFailed"]
    assert [f["blockedReason"] for f in failed] == ["csp"]


def test_headers_sort_with_the_keyboard(opened):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    driver = opened()
    headers = driver.find_elements(By.CSS_SELECTOR, "table.series")[0].find_elements(
        By.CSS_SELECTOR, "thead th"
    )
    assert [h.text for h in headers] == [
        "Series", "Verdict", "Unit", "Better", "Base", "Head", "Effect", "Threshold", "MDE", "n",
        "Repeat",
    ]  # fmt: skip
    assert headers[1].get_attribute("aria-sort") == "ascending"
    effect = headers[6]
    effect.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert effect.get_attribute("aria-sort") == "descending"
    assert headers[1].get_attribute("aria-sort") is None
    values = _column(driver, 0, 6)
    numbers = [float(v) for v in values if v]
    assert numbers == sorted(numbers, reverse=True)
    assert values[len(numbers) :] == [""] * (len(values) - len(numbers))
    effect.find_element(By.TAG_NAME, "button").send_keys(Keys.SPACE)
    assert effect.get_attribute("aria-sort") == "ascending"
    values = _column(driver, 0, 6)
    assert [float(v) for v in values if v] == sorted(numbers)
    assert values[-1] == ""
    name = headers[0].find_element(By.TAG_NAME, "button")
    name.send_keys(Keys.ENTER)
    names = _column(driver, 0, 0)
    assert names.index("speed/prefill/8192/low") < names.index("speed/prefill/16384/low")


def test_the_filter_narrows_by_words_and_by_verdict(opened, mixed):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    driver = opened()
    count = driver.find_element(By.CSS_SELECTOR, ".tools output")
    assert count.text == "Found 12 of 12 series"
    box = driver.find_element(By.CSS_SELECTOR, ".tools input")
    box.send_keys("PREFILL 8192/low")
    assert _shown(driver) == ["speed/prefill/8192/low"]
    assert count.text == "Found 1 of 12 series"
    box.clear()
    box.send_keys("nothing like it")
    assert count.text == "Found 0 of 12 series"
    assert _shown(driver) == []
    box.clear()
    verdict = Select(driver.find_element(By.CSS_SELECTOR, ".tools select"))
    verdict.select_by_visible_text("REGRESSION")
    assert set(_shown(driver)) == {s.name for s in mixed if s.verdict == "REGRESSION"}
    verdict.select_by_visible_text("what needs a look")
    assert len(_shown(driver)) == 8


@pytest.mark.parametrize(("width", "dark"), [(360, True), (768, False), (1280, True)])
def test_nothing_is_wider_than_the_screen_and_all_text_has_contrast(opened, width, dark):
    driver = opened(width=width, dark=dark)
    driver.execute_script("document.querySelectorAll('details').forEach((d) => d.open = true)")
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert driver.execute_script(CONTRAST) == []
    assert driver.get_log("browser") == []


def test_every_control_can_be_reached_by_tab(opened):
    driver = opened()
    unreachable = driver.execute_script(
        "return [...document.querySelectorAll('button, input, select, summary, a')]"
        ".filter((n) => n.tabIndex < 0).length"
    )
    unnamed = driver.execute_script(
        "return [...document.querySelectorAll('button, input, select')]"
        ".filter((n) => !(n.textContent.trim() || n.labels?.length)).length"
    )
    assert (unreachable, unnamed) == (0, 0)


def test_on_paper_everything_is_open(opened):
    driver = opened()
    closed = "return document.querySelectorAll('details:not([open])').length"
    before = driver.execute_script(closed)
    assert before > 0
    driver.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert driver.execute_script(closed) == 0
    driver.execute_script("dispatchEvent(new Event('afterprint'))")
    assert driver.execute_script(closed) == before
    printed = driver.execute_cdp_cmd("Page.printToPDF", {})
    assert len(printed["data"]) > 10_000


def test_a_long_table_is_laid_out_in_part_until_asked_for(opened, make_series):
    from selenium.webdriver.common.by import By

    series = [make_series(name=f"speed/case/{i}", effect=i / 1e6) for i in range(400)]
    driver = opened(series, pairs=1)
    assert len(_shown(driver)) == 150
    more = driver.find_element(By.CSS_SELECTOR, ".more")
    assert more.text == "Show 250 more of this table"
    effect = driver.find_element(By.CSS_SELECTOR, "table.series thead th:nth-child(7) button")
    effect.click()
    assert _shown(driver)[0] == "speed/case/399"
    box = driver.find_element(By.CSS_SELECTOR, ".tools input")
    box.send_keys("case/7")
    assert len(_shown(driver)) == 11
    assert not more.is_displayed()
    box.clear()
    box.send_keys("case")
    more.click()
    assert len(_shown(driver)) == 400


@pytest.mark.slow  # a bound on time needs a quiet machine
def test_two_thousand_series_are_ready_within_two_seconds(opened, make_series):
    driver = opened([make_series(name=f"speed/case/{i}") for i in range(2000)], pairs=1)
    times = []
    for _ in range(5):
        driver.refresh()
        times.append(
            driver.execute_script(
                "return performance.getEntriesByType('navigation')[0].domComplete"
            )
        )
    assert 0 < min(times) < 2000


def test_the_page_of_the_gate_itself_sorts_and_filters(driver, tmp_path):
    rows = [
        {"name": name, "class": "selection", "summary": "Wrong.", "seen": "", "gate": "work",
         "verdict": "REGRESSION", "detail": "", "caught": name != "b", "applied": True,
         "seconds": seconds}
        for name, seconds in (("a", 10.5), ("b", 9.0), ("c", 100.0))
    ]  # fmt: skip
    (tmp_path / "faults.json").write_text(json.dumps({"faults": rows}))
    driver.get_log("browser")
    driver.get(write_gate_report(tmp_path).html.as_uri())
    assert _shown(driver) == ["b", "a", "c"]
    driver.find_elements("css selector", "thead button")[6].click()
    assert _shown(driver) == ["b", "a", "c"]
    driver.find_elements("css selector", "thead button")[6].click()
    assert _shown(driver) == ["c", "a", "b"]
    driver.execute_script(
        "const s = document.querySelector('.tools select'); s.value = 'MISSED';"
        "s.dispatchEvent(new Event('change'));"
    )
    assert _shown(driver) == ["b"]
    assert driver.find_element("css selector", ".tools output").text == "Found 1 of 3 rows"
    assert driver.get_log("browser") == []
    assert driver.execute_script(CONTRAST) == []
