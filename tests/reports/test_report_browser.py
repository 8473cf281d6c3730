"""The page in a real Chromium: it works, asks for nothing, and can be read."""

from __future__ import annotations

import json

import browser
import pytest
import screenshots

from msa_harness.verdicts import Verdict
from msa_reports.gate_report import write_gate_report
from msa_reports.report import write_report

pytestmark = [
    pytest.mark.whole,
    pytest.mark.browser,
    pytest.mark.skipif(browser.CHROMIUM is None, reason="no chromium on the PATH"),
    pytest.mark.skipif(browser.DRIVER is None, reason="no chromedriver on the PATH"),
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
    assert {url.split(":")[0] for url in browser.requests(driver)} <= {"file", "data"}
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


def test_a_filter_is_for_the_tables_of_its_own_section(opened, evidence):
    driver = opened(beside=evidence)
    counts = "return [...document.querySelectorAll('.tools output')].map((o) => o.textContent)"
    series, rows = driver.execute_script(counts)
    assert series == "Found 12 of 12 series"
    assert rows == "Found 25 of 25 rows"
    driver.execute_script(
        "const s = document.querySelectorAll('.tools select')[1]; s.value = 'NOT APPLIED';"
        "s.dispatchEvent(new Event('change'));"
    )
    assert driver.execute_script(counts) == ["Found 12 of 12 series", "Found 1 of 25 rows"]
    assert [name for name in _shown(driver) if "/" not in name] == ["idle-fault"]


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


# From the start of loading until the page has answered a press of a button, drawn.
INTERACTIVE = """
const done = arguments[0];
document.querySelector("thead button").click();
requestAnimationFrame(() => setTimeout(() => done([
  performance.now(), performance.getEntriesByType("navigation")[0].domInteractive])));
"""


@pytest.mark.slow  # a bound on time needs a quiet machine
def test_two_thousand_series_are_ready_within_two_seconds(opened, make_series, evidence):
    # Of every verdict, so that every kind of plot is there.
    series = [
        make_series(name=f"speed/case/{i}", verdict=list(Verdict)[i % 10], note="why" * 20)
        for i in range(2000)
    ]
    driver = opened(series, pairs=8, beside=evidence)
    size = driver.execute_script("return document.documentElement.outerHTML.length")
    times = []
    for _ in range(5):
        driver.refresh()
        now, interactive = driver.execute_async_script(INTERACTIVE)
        assert now > interactive > 0
        times.append(now)
    print(f"{size / 1e6:.1f} MB, interactive after {min(times):.0f} ms")
    assert size < 6_000_000
    assert min(times) < 2000


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


@pytest.mark.slow
def test_pictures_of_a_report_are_made(make_run, mixed, tmp_path):
    run = make_run(mixed)
    with pytest.raises(FileNotFoundError, match=r"wanted a directory with report\.html"):
        screenshots.main(tmp_path / "images", run)
    write_report(run)
    screenshots.main(tmp_path / "images", run)
    made = {path.name: path.read_bytes() for path in (tmp_path / "images").iterdir()}
    pictures = {*screenshots.HISTORY, *screenshots.PICTURES}
    assert set(made) == {f"{name}.png" for name in pictures}
    for data in made.values():
        assert data.startswith(b"\x89PNG")
        assert 10_000 < len(data) <= screenshots.MOST_BYTES
