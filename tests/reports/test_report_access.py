"""The pages in a real Chromium can be read: any width, light, dark, paper, keyboard, reader."""

from __future__ import annotations

import browser
import pytest

from msa_reports.gate_report import write_gate_report
from msa_reports.report import write_report

pytestmark = [
    pytest.mark.whole,
    pytest.mark.browser,
    pytest.mark.skipif(browser.CHROMIUM is None, reason="no chromium on the PATH"),
    pytest.mark.skipif(browser.DRIVER is None, reason="no chromedriver on the PATH"),
]

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


@pytest.mark.parametrize(("width", "dark"), [(360, True), (768, False), (1280, True)])
def test_nothing_is_wider_than_the_screen_and_all_text_has_contrast(opened, width, dark):
    driver = opened(width=width, dark=dark)
    driver.execute_script("document.querySelectorAll('details').forEach((d) => d.open = true)")
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert driver.execute_script(CONTRAST) == []
    assert driver.get_log("browser") == []


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (360, False)])
def test_axe_finds_nothing_wrong_with_the_page_of_a_run(opened, evidence, width, dark):
    assert browser.violations(opened(width=width, dark=dark, beside=evidence)) == []


@pytest.mark.parametrize(
    ("width", "dark"), [(1280, True), pytest.param(360, False, marks=pytest.mark.slow)]
)
def test_axe_finds_nothing_wrong_with_the_page_of_the_gate(driver, tmp_path, evidence, width, dark):
    for name, text in evidence.items():
        (tmp_path / name).write_text(text)
    browser.show(driver, write_gate_report(tmp_path).html, width=width, dark=dark)
    assert browser.violations(driver) == []


def test_axe_would_find_a_fault(opened):
    driver = opened()
    driver.execute_script(
        "document.querySelector('.tools label').replaceWith(document.createElement('input'));"
        "document.documentElement.removeAttribute('lang');"
    )
    assert {name for name, _ in browser.violations(driver)} == {"html-has-lang", "label"}


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


def test_on_paper_everything_is_open_and_nothing_is_cut_off(driver, make_run, mixed):
    page = write_report(make_run(mixed)).html
    browser.show(driver, page, width=794, media="print")  # the width of A4
    # The numbers of many small plots are for the screen.
    closed = "return document.querySelectorAll('details:not([open], .small *)').length"
    before = driver.execute_script(closed)
    assert before > 0
    driver.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert driver.execute_script(closed) == 0
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 794
    driver.execute_script("dispatchEvent(new Event('afterprint'))")
    assert driver.execute_script(closed) == before
    printed = driver.execute_cdp_cmd("Page.printToPDF", {})
    assert len(printed["data"]) > 10_000
