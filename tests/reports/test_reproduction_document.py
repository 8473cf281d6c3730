from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest

from msa_harness.records import RunError
from msa_reports.reproduction.document import SECTIONS, write_reproduction
from msa_reports.reproduction.layout import Comparison, Section, Table, anchor, render
from msa_reports.reproduction.standalone import standalone
from msa_reports.scale import Axis
from msa_reports.svg import Chart, Heat, Line

SETUP = {"model": {"name": "embedded", "sha256": "ab" * 32}, "seed": 0, "device": "a CPU",
         "quick": False, "torch": "2.13"}  # fmt: skip


def estimate(value, spread=0.02, n=12):
    return {"value": value, "low": value - spread, "high": value + spread, "n": n}


def row(name, topk, recall, change):
    return {"name": name, "scorer": name, "topk": topk, "sink_blocks": 1, "perplexity": 3.0,
            "recall": estimate(recall), "change": estimate(change)}  # fmt: skip


def curve(*rows):
    return {"length": 2048, "block": 32, "dense": row("dense", 0, 1.0, 0.0), "rows": list(rows)}


BLIND = curve(row("max", 4, 0.97, 0.08), row("recent", 4, 0.01, 0.03), row("random", 16, 0.02, 0.4))


def write(folder, name, measured, **changes):
    document = {"schema": "msa-bench/reproduction/1", "section": name, "setup": SETUP,
                "commit": "c0ffee" * 6, "dirty": False, "command": "msa-bench reproduce --out r",
                "seconds": 2.5, "result": measured, "why_not": ""}  # fmt: skip
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    (data / f"{name}.json").write_text(json.dumps(document | changes))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "r"


def test_a_section_and_its_plot(folder):
    write(folder, "blindness", BLIND)
    document = write_reproduction(folder)
    assert document == folder.with_name("r.md")
    text = document.read_text()
    assert (
        "| random selection, k 16&#58; recall" in text or "| random selection, k 16: recall" in text
    )
    assert "lets 1 broken point of 3 through" in text
    assert "In 1 pair of points perplexity prefers a broken selector" in text
    assert "recent at k 4 (+3.0%" in text
    assert "![Recall against change of perplexity](r/blindness.svg)" in text
    assert (folder / "blindness.svg").exists()
    assert "--quick" not in text


def test_every_local_link_of_the_document_leads_somewhere(folder):
    write(folder, "blindness", BLIND)
    text = write_reproduction(folder).read_text()
    headings = {anchor(one) for one in re.findall(r"^## (.+)$", text, re.MULTILINE)}
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert targets
    for target in targets:
        assert target[1:] in headings if target[0] == "#" else (folder.parent / target).exists()


def test_what_is_not_there_says_so_and_how_to_get_it(folder):
    write(folder, "blindness", BLIND)
    write(folder, "clock", None, why_not="no | clock")
    text = write_reproduction(folder).read_text()
    assert "**Not measured.** no &#124; clock" in text
    assert "**Not measured.** It was not asked for." in text
    assert "--only selection --resume" in text


def test_quick_sizes_are_said_to_reproduce_nothing(folder):
    write(folder, "blindness", BLIND, setup=SETUP | {"quick": True})
    assert "It reproduces nothing: blindness" in write_reproduction(folder).read_text()


def test_hostile_strings_stay_text(folder, hostile):
    write(
        folder,
        "blindness",
        curve(row(hostile, 4, 0.0, 0.01), row("max", 4, 1.0, 0.0)),
        setup=SETUP | {"device": hostile, "model": {"name": hostile, "sha256": ""}},
        commit=hostile,
        command=hostile,
    )
    write(folder, "clock", None, why_not=hostile)
    text = write_reproduction(folder).read_text()
    for bad in ("<script", "<img", "@someone", "GH-3", "\x1b", "**b**", "](https"):
        assert bad not in text
    picture = (folder / "blindness.svg").read_text()
    root = ElementTree.fromstring(picture)
    assert {node.tag.rpartition("}")[2] for node in root.iter()} <= {
        "svg", "style", "rect", "title", "desc", "path", "text", "g", "circle",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "other/1"}, r"blindness\.json: schema: wanted msa-bench/reproduction/1"),
        ({"section": "scorers"}, r"blindness\.json: section: wanted blindness"),
        ({"seconds": "long"}, "seconds: wanted a finite number"),
        ({"setup": {}}, r"setup\.quick: wanted bool"),
        ({"result": {"length": 2048}}, "result: block: wanted int"),
        ({"result": curve({"name": "max", "topk": 4})}, "recall: wanted an object"),
        (
            {"result": curve(row("max", 4, 1.0, 0.0) | {"recall": {"value": None}})},
            r"recall\.value: wanted a finite number",
        ),
    ],
)
def test_broken_data_are_named(folder, change, message):
    write(folder, "blindness", BLIND, **change)
    with pytest.raises(RunError, match=message):
        write_reproduction(folder)


def test_no_json_and_no_data(folder):
    with pytest.raises(RunError, match="wanted sections of `msa-bench reproduce`, got none"):
        write_reproduction(folder)
    write(folder, "blindness", BLIND)
    (folder / "data/blindness.json").write_text("{")
    with pytest.raises(RunError, match=r"blindness\.json: wanted JSON"):
        write_reproduction(folder)
    write(folder, "blindness", BLIND)
    (folder / "data/other.json").write_text((folder / "data/blindness.json").read_text())
    with pytest.raises(RunError, match=r"other\.json: section: wanted other, one of cost"):
        write_reproduction(folder)


def test_cells_are_escaped_and_prose_is_not():
    section = Section(
        title="T",
        claim="*yes*",
        method="m",
        comparisons=(Comparison("a|b", "1", "", "<b>", "c"),),
        tables=(Table("x", ("c",), [("[l](u)",)]),),
    )
    text = render(section, folder="f", command="c")
    assert "*yes*" in text
    assert "a&#124;b" in text
    assert "<b>" not in text
    assert "[l](u)" not in text


CHART = Chart(
    "t", "d", Axis("x"), Axis("y"),
    (Line("one", ((0.0, 0.0), (1.0, 1.0)), 0), Line("two & <three>", ((0.0, 1.0),), 9)),
)  # fmt: skip


def test_a_picture_stands_alone():
    text = standalone(CHART, name="n")
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme: dark" in text
    # Nothing but the namespace names an address, and nothing is loaded or run.
    assert re.findall(r"https?:[^\"' ]+", text) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"url\(|@import|href|<script|<image", text)
    words = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"one", "two & <three>"} <= set(words)
    bottom = float(root.get("viewBox").split()[3])
    places = (float(node.get("y", 0)) for node in root.iter("{http://www.w3.org/2000/svg}text"))
    assert max(places) < bottom


def test_a_map_has_its_shades_as_legend():
    heat = Heat(((1.0,), (0.1, 0.6)))
    text = standalone(Chart("t", "d", Axis("x"), Axis("y"), heat=heat), name="n")
    assert text.count('class="h h') >= 4
    assert "75% to 100%" in text


def test_the_picture_has_the_colours_of_the_page():
    from msa_reports.html import _source

    def colours(name):
        return re.findall(r"--(s\d|card|ink|soft|line): (#\w+)", _source(name))

    assert set(colours("chart.css")) <= set(colours("report.css"))
    assert len(colours("chart.css")) == 24


def test_sections_have_names_of_one_word():
    assert all(re.fullmatch(r"[a-z]+", name) for name in SECTIONS)
