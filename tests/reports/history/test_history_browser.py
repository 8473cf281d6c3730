"""The site of the history in a real Chromium, which may load nothing from elsewhere."""

from __future__ import annotations

import pytest
from browser import CHROMIUM, DRIVER, requests, served, show, violations

pytest.importorskip("asv", reason="asv is an extra")

from histories import judging, publish_six, repository

pytestmark = [
    pytest.mark.whole,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH"),
    pytest.mark.skipif(DRIVER is None, reason="no chromedriver on the PATH"),
]


@pytest.fixture(scope="module")
def site(run_maker, make_series, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    repo, commits = repository(folder / "repo")
    found = publish_six(judging(run_maker(folder), commits), make_series, repo)
    with served(found.html) as home:
        yield home, commits


def opened(driver, address, wanted):
    """Open a page, wait for an element of it, and return what it says."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    driver.get("about:blank")
    show(driver, address)
    WebDriverWait(driver, 20).until(lambda d: d.find_elements(By.CSS_SELECTOR, wanted))
    return driver.find_element(By.TAG_NAME, "body").text


def test_every_page_of_asv_opens_without_a_network(driver, site):
    home, commits = site
    asked = []
    for address, wanted, words in (
        ("index.html", "#summarygrid-display canvas", "msa-bench"),
        ("index.html#/summarylist", "#summarylist-body tbody tr", "1 - quality.msa_facts.recall"),
        ("index.html#/regressions", "#regressions-body tbody tr", "quality.msa_facts.recall"),
        ("index.html#quality.msa_facts.recall", "#main-graph canvas", "some-r-cpu-2-cores"),
    ):
        text = opened(driver, home + address, wanted)
        assert words in text, (address, text)
        assert [entry["message"] for entry in driver.get_log("browser")] == []
        asked += requests(driver)
    assert not [one for one in asked if not one.startswith((home, "data:", "about:"))]
    assert any("jquery" in one for one in asked)
    assert commits[3][:8] in opened(driver, home + "index.html#/regressions", "tbody tr td")


def test_the_list_of_asv_sorts(driver, site):
    from selenium.webdriver.common.by import By

    home, _ = site
    opened(driver, home + "index.html#/summarylist", "#summarylist-body tbody tr")
    first = []
    for column in (0, 0, 1, 1):
        driver.find_elements(By.CSS_SELECTOR, "#summarylist-body thead th")[column].click()
        first.append(driver.find_element(By.CSS_SELECTOR, "#summarylist-body tbody tr td").text)
    assert first[0] != first[1]
    assert first[2] != first[3]


def test_the_overview_leads_to_graphs_and_filters(driver, site):
    from selenium.webdriver.common.by import By

    home, _ = site
    text = opened(driver, home + "overview.html", "table.series tbody tr")
    assert "0.97 → 0.5, worse" in text
    assert len(driver.find_elements(By.CSS_SELECTOR, "table.series svg[role=img]")) == 2
    driver.find_element(By.CSS_SELECTOR, ".tools input").send_keys("recall")
    assert "Found 1 of 2 series" in driver.find_element(By.CSS_SELECTOR, ".tools").text
    assert [entry["message"] for entry in driver.get_log("browser")] == []
    driver.find_element(By.LINK_TEXT, "quality/msa_facts/recall").click()
    assert driver.current_url.startswith(home + "index.html#quality.msa_facts.recall")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (360, True)])
def test_axe_finds_nothing_wrong_with_the_overview(driver, site, width, dark):
    home, _ = site
    show(driver, home + "overview.html", width=width, dark=dark)
    assert violations(driver) == []
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
