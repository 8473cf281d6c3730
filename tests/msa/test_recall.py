"""Recall of attention mass and of blocks, on selections whose recall is known."""

from __future__ import annotations

import pytest
import torch

from msa.packing import cumulative
from msa.recall import block_recall, mass_recall, selected_blocks
from msa.recording import LayerRecord, Recorder

INF = torch.inf
# Queries at position 17 with blocks of 4: blocks 0 to 4 are visible, 4 is local.
MASS = torch.tensor([[[0.4, 0.05, 0.2, 0.25, 0.1, -INF]]])
ASKED = {
    "positions": torch.tensor([17]),
    "block": 4,
    "topk": 3,
    "local_blocks": 1,
    "sink_blocks": 0,
}


def ids(*blocks):
    return torch.tensor([[blocks]], dtype=torch.int32)


def test_selected_blocks_ignores_empty_slots():
    got = selected_blocks(torch.tensor([[[1, 3, -1]], [[-1, -1, -1]]], dtype=torch.int32), 4)
    assert got.tolist() == [[[False, True, False, True]], [[False] * 4]]


@pytest.mark.parametrize(
    ("blocks", "share"), [((0, 3, 4), 0.75), ((1, 2, 4), 0.35), ((4, -1, -1), 0.1), ((-1,) * 3, 0)]
)
def test_mass_recall(blocks, share):
    assert float(mass_recall(MASS, ids(*blocks))) == pytest.approx(share)


@pytest.mark.parametrize(
    ("blocks", "sinks", "share"),
    [
        ((0, 3, 4), 0, 1.0),  # the two best beside the local block
        ((0, 2, 4), 0, 0.5),
        ((1, 2, 4), 0, 0.0),
        ((0, 3, 4), 1, 1.0),  # block 0 is forced: one free choice, block 3
        ((0, 2, 4), 1, 0.0),
    ],
)
def test_block_recall_counts_free_choices(blocks, sinks, share):
    got = block_recall(MASS, ids(*blocks), **{**ASKED, "sink_blocks": sinks})
    assert float(got) == share


@pytest.mark.parametrize("change", [{"topk": 5}, {"topk": 1}, {"topk": 2, "sink_blocks": 1}])
def test_no_choice_is_nan(change):
    """Everything fits, or the forced blocks fill k."""
    assert bool(block_recall(MASS, ids(0, 3, 4), **{**ASKED, **change}).isnan())


def test_recorder_without_mass_says_what_is_missing():
    recorder = Recorder()
    x, cu = torch.zeros(3, 1, 2), cumulative([3])
    recorder.take(
        layer=2,
        q=x,
        k=x,
        scores=torch.zeros(3, 1, 1),
        selection=torch.zeros(3, 1, 1, dtype=torch.int32),
        cu_q=cu,
        cu_k=cu,
        block=4,
        scale=1.0,
        local_blocks=1,
        sink_blocks=0,
    )
    (record,) = recorder
    assert isinstance(record, LayerRecord)
    assert record.layer == 2
    with pytest.raises(ValueError, match=r"^mass: wanted a recorder with mass=True"):
        record.mass_recall()
