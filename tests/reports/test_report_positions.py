"""Nats by position and maps of the kept blocks: every number is there, once, in its place."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import position_samples

from msa_harness.records import Sample
from msa_reports import svg
from msa_reports.positions import nll_figures, selection_figures
from msa_reports.scale import Axis


def test_nll_by_position_has_a_line_for_dense_base_and_head():
    (figure,) = nll_figures(position_samples())
    assert [label for _, label in figure.legend] == ["dense attention", "MSA, base", "MSA, head"]
    assert figure.rows == (("0", "1.1", "1.1", "1.1", "0"), ("128", "1.1", "1.15", "1.3", "+0.15"))


def test_a_side_that_was_not_measured_has_no_line():
    head = [s for s in position_samples() if s.subject == "head"]
    (figure,) = nll_figures(head)
    assert [label for _, label in figure.legend] == ["MSA, head"]
    assert figure.rows[1] == ("128", "1.3", "n/a")
    assert list(nll_figures([])) == []


def test_there_is_a_map_for_base_and_one_for_head_where_they_differ():
    missing = []
    base, head = selection_figures(position_samples(), missing)
    assert (base.title, head.title, missing) == (
        "Layer 0, group 1: base",
        "Layer 0, group 1: head",
        [],
    )
    assert base.rows[3] == ("3", "4", "0 (100%), 1 (100%), 2 (100%), 3 (100%)")
    assert head.rows[3] == ("3", "3", "3 (100%), 2 (50%), 1 (25%)")
    assert "keep 2.5 blocks together" in base.caption
    assert [label for _, label in head.legend] == [
        "0% to 25%", "25% to 50%", "50% to 75%", "75% to 100%",
    ]  # fmt: skip


def test_one_map_is_enough_where_base_and_head_keep_the_same():
    head = [s for s in position_samples() if s.subject == "head"]
    same = [Sample(**{**_fields(s), "subject": "base"}) for s in head]
    (figure,) = selection_figures([*head, *same], [])
    assert figure.title == "Layer 0, group 1: base and head"


def test_maps_beyond_a_page_are_said_to_be_left_out():
    one = next(s for s in position_samples() if s.raw == (1.0,))
    many = [Sample(**{**_fields(one), "item": f"layer-{i}/group-0/block-0"}) for i in range(30)]
    missing = []
    assert len(list(selection_figures(many, missing))) == 24
    assert missing == ["Selection maps of further layers and groups, for length."]


@pytest.mark.parametrize(
    "change",
    [
        {"item": "<script>"},
        {"item": "layer-0/group-0/block-99999"},
        {"item": "layer-0/group-0/block-1"},  # has one share for two blocks
        {"raw": (7.0,)},
        {"series": "quality/other"},
    ],
)
def test_what_is_no_map_is_not_drawn(change):
    one = next(s for s in position_samples() if s.raw == (1.0,))
    assert list(selection_figures([Sample(**{**_fields(one), **change})], [])) == []


def _fields(sample):
    return {name: getattr(sample, name) for name in Sample.__slots__}


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=12), min_size=1, max_size=12))
def test_a_heat_map_covers_every_cell_once_with_its_shade(rows):
    chart = svg.Chart("t", "d", Axis("x", include=(0.0, 12.0)), Axis("y", include=(0.0, 12.0)),
                      heat=svg.Heat(tuple(map(tuple, rows))))  # fmt: skip
    root = ElementTree.fromstring(svg.draw(chart, name="one"))
    drawn = {}
    for path in root.findall("g/path"):
        shade = int(path.get("class").removeprefix("h h"))
        for rect in path.get("d").removesuffix("z").split("z"):
            place, wide = rect.removeprefix("M").split("h", 1)
            x, y = map(int, place.split())
            for at in range(x, x + int(wide.split("v")[0])):
                assert (at, y) not in drawn
                drawn[at, y] = shade
    wanted = {
        (x, y): min(4, 1 + sum(share > bound for bound in (0.25, 0.5, 0.75)))
        for y, row in enumerate(rows)
        for x, share in enumerate(row)
        if share > 0
    }
    assert drawn == wanted
