from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from msa_harness.records import RunError, RunHeader
from msa_harness.verdicts import Outcome, SeriesVerdict, Verdict
from msa_reports import html, page
from msa_reports.report import write_report


class Structure(HTMLParser):
    """Every element with the names of its attributes; text and values kept apart."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.attributes, self.texts = [], [], []
        self._open = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.attributes.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        self.elements.append(("/" + tag, ()))
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if self._open[-1:] not in (["style"], ["script"]):
            self.texts.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.attributes if name == tag]


def _page(text, **series):
    given_ = {"suite": "s", "unit": "s", "direction": "lower", "verdict": Verdict.REGRESSION}
    header = RunHeader(
        command="gate", argv=("gate", text), environment={"e" + text: {"f" + text: text}},
        subjects={"base": {"revision": text}}, judge={"j": [text]}, profile=text, seed=1, gates={},
    )  # fmt: skip
    outcome = Outcome(Verdict.REGRESSION, (SeriesVerdict(**{**given_, **series}),), (text,))
    return html.render(page.build(header, (), outcome, missing=(text,)))


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(codec=None)))
@example("\ud800")
def test_no_string_changes_the_structure_of_the_page(text):
    text = "x" + text
    shown = _page(text, name=text, note=text, repro=text, unit=text, suite=text, direction=text)
    plain = _page("x", name="x", note="x", repro="x")
    assert Structure(shown).elements == Structure(plain).elements
    shown.encode()


def test_hostile_strings_are_text_on_the_page(make_run, make_series, hostile):
    run = make_run(
        [make_series(name=hostile, note=hostile, repro=hostile, verdict=Verdict.ERROR)],
        text=hostile.replace("\ud800", ""),
    )
    paths = write_report(run)
    text = paths.html.read_text(encoding="utf-8")
    assert "<script>window" not in text
    assert "<img" not in text
    assert "window.hit" in "".join(Structure(text).texts)
    for line in paths.markdown.read_text(encoding="utf-8").split("\n"):
        assert not line.lstrip().startswith("::")


def test_the_page_says_first_what_matters(make_run, mixed):
    text = write_report(make_run(mixed)).html.read_text(encoding="utf-8")
    parsed = Structure(text)
    words = [t.strip() for t in parsed.texts if t.strip()]
    start = words.index("REGRESSION", 2)
    assert words[start + 1].startswith("2 of 12 series got worse; worst:")
    heads = re.findall(r"<h2[^>]*>([^<]+)", text)
    assert heads == ["What needs a look", "Results", "Plots", "What ran, and where"]
    captions = re.findall(r"<caption>(\w+) <span>([^<]+)", text)
    assert sorted(captions) == [
        ("quality", "4 series"),
        ("speed", "7 series"),
        ("work", "1 series"),
    ]
    figures = re.findall(r"<figcaption>([^<]+)", text)
    assert [name for name in figures if not name.startswith("Pairs of ")] == [
        "Recall against budget",
        "Perplexity against budget",
        "Scorers compared, k = 4",
        "Token NLL by position",
        "Crossover: time of dense and MSA prefill, float32",
        "Speed-up over dense, float32",
        "Roofline, float32",
        "Layer 0, group 1: base",
        "Layer 0, group 1: head",
    ]
    for fact in ("c88a3a3f", "6a9f17f0", "msa.fast 0.1.0 sha256:head", "some cpu", "2.13.0"):
        assert fact in text


def test_the_page_is_whole_and_asks_for_nothing(make_run, mixed):
    text = write_report(make_run(mixed)).html.read_text(encoding="utf-8")
    parsed = Structure(text)
    (policy,) = [m["content"] for m in parsed.all("meta") if "http-equiv" in m]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"https?://", text)
    for tag, attrs in parsed.attributes:
        assert tag not in ("img", "iframe", "object", "base")
        assert not {"src", "style"} & set(attrs)
        assert not any(name.startswith("on") for name in attrs)
        assert attrs.get("href", "#").startswith(("#", "data:,"))


def test_the_page_can_be_read_by_a_screen_reader(make_run, mixed):
    text = write_report(make_run(mixed)).html.read_text(encoding="utf-8")
    parsed = Structure(text)
    assert parsed.all("html") == [{"lang": "en"}]
    ids = [attrs["id"] for _, attrs in parsed.attributes if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in parsed.attributes:
        for name in attrs.get("aria-labelledby", "").split():
            assert name in ids
    assert all("scope" in attrs for attrs in parsed.all("th"))
    series = [t for t in parsed.all("table") if t.get("class") == "series"]
    assert len(series) == text.count("<caption>")
    assert all("role" in svg for svg in parsed.all("svg") if svg.get("class") == "chart")
    assert text.count("<h1>") == 1


def test_a_run_without_a_verdict_says_that_it_passed_nothing(make_run, mixed):
    paths = write_report(make_run(mixed, judged=False))
    for path in (paths.html, paths.markdown):
        text = path.read_text(encoding="utf-8")
        assert "NOT JUDGED YET" in text
        assert "passed nothing" in text
        assert "PASS " not in text


def test_what_the_run_lacks_is_said(make_run, mixed):
    quality = [s for s in mixed if s.suite == "quality"]
    run = make_run(quality, speed=False, sweep=False, limits=False, positions=False)
    text = write_report(run).html.read_text(encoding="utf-8")
    assert "Budget curve and comparison of scorers: the run has no sweep.json" in text
    assert "Crossover plot: the run has no speed samples of" in text
    assert "Roofline: the run has no cost.json" in text
    assert "Token NLL by position and selection maps: the run has no samples of" in text
    run = make_run(mixed, name="second", limits=False)
    text = write_report(run).html.read_text(encoding="utf-8")
    assert "Arithmetic limit of the speed-up: the run has no cost.json" in text


def test_what_is_known_of_the_gate_stands_on_the_page_of_a_run(make_run, mixed, evidence):
    text = write_report(make_run(mixed, beside=evidence)).html.read_text(encoding="utf-8")
    after = text[text.index('<h2 id="gate">What a PASS is worth') :]
    for shown in ("Slowdowns that are found, 1 of 2", "Losses of recall that are found",
                  "1 of 2 known faults caught.", "idle-fault", "<caption>Mutants"):  # fmt: skip
        assert shown in after
    plain = write_report(make_run(mixed, name="plain")).html.read_text(encoding="utf-8")
    assert "What a PASS is worth" not in plain


def test_a_run_that_measured_nothing_is_an_error(make_run):
    run = make_run([], speed=False, sweep=False)
    text = write_report(run).html.read_text(encoding="utf-8")
    assert "Nothing was measured, which is never a pass." in text


def test_reports_are_replaced_as_a_whole_and_repeat_exactly(make_run, mixed):
    run = make_run(mixed)
    first = write_report(run).html.read_bytes()
    assert write_report(run).html.read_bytes() == first
    assert not [path.name for path in run.iterdir() if path.name.startswith(".")]


def test_a_torn_last_line_is_noted_on_the_page(make_run, mixed):
    run = make_run(mixed)
    with (run / "samples.jsonl").open("a") as file:
        file.write('{"suite": "sp')
    assert "dropped a torn last line" in write_report(run).html.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: "{", "verdict.json"),
        (lambda _: [], "wanted an object with verdict and series"),
        (lambda v: {**v, "verdict": "FINE"}, "FINE"),
        (lambda v: {**v, "notes": [1]}, "notes: wanted texts"),
        (lambda v: {**v, "series": [{**v["series"][0], "base": "<b>"}]}, "base: wanted float"),
        (lambda v: {**v, "series": [{**v["series"][0], "n": None}]}, "n: wanted int"),
        (lambda v: {**v, "series": [{**v["series"][0], "note": 3}]}, "note: wanted str"),
        (lambda v: {**v, "series": [{**v["series"][0], "extra": 3}]}, "extra"),
    ],
)
def test_a_verdict_that_is_not_ours_is_refused_by_name(make_run, mixed, change, message):
    run = make_run(mixed)
    path = run / "verdict.json"
    changed = change(json.loads(path.read_text(encoding="utf-8")))
    path.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    with pytest.raises(RunError, match=message):
        write_report(run)
    assert not (run / "report.html").exists()


def test_a_directory_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="wanted a run directory"):
        write_report(tmp_path)


def test_two_thousand_series_make_a_page_of_bearable_weight(make_run, make_series):
    series = [
        make_series(
            name=f"speed/case/{i}", verdict=list(Verdict)[i % 10], note="why" * 20
        )
        for i in range(2000)
    ]  # fmt: skip
    paths = write_report(make_run(series, pairs=1))
    assert paths.html.stat().st_size < 6_000_000
    assert len(paths.markdown.read_text(encoding="utf-8")) < 60_000
    text = paths.html.read_text(encoding="utf-8")
    assert text.count(' data-verdict="') == 2000
    assert "more are in the tables below" in text


def test_a_comparison_of_equals_is_headed_as_a_self_test(make_run, mixed):
    run = make_run(mixed)
    path = run / "run.json"
    header = json.loads(path.read_text(encoding="utf-8"))
    paths = write_report(run)
    assert "self-test" not in paths.html.read_text(encoding="utf-8")
    header["subjects"]["head"] = header["subjects"]["base"]
    path.write_text(json.dumps(header), encoding="utf-8")
    for path in (write_report(run).html, paths.markdown):
        assert "self-test: nothing compared" in path.read_text(encoding="utf-8")
