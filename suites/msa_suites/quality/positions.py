"""What a model reads, place by place: for the plots of the report, and judged by no gate.

Nats per byte by position show where in a text sparse attention loses what dense attention knows;
the key blocks that each block of queries keeps show what a scorer looks at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from msa_suites.models.attention import Network, settings_for, use_dense, use_msa
from msa_suites.quality.evaluate import refuse_own
from msa_suites.quality.items import Item, load_items

TASK = "positions"
#: Tokens whose NLL is averaged.
BIN = 128
#: Texts of `msa_perplexity` that are read: enough for a curve.
TEXTS = 8

Row = dict[str, Any]


def token_nll(logits: Tensor, tokens: Tensor) -> Tensor:
    """Nats of each token given those before it.

    Args:
        logits: ``[T, V]``, of reading ``tokens``.
        tokens: int64 ``[T]``.

    Returns:
        float64 ``[T - 1]``: of the tokens from the second on.
    """
    log_p = logits[:-1].double().log_softmax(-1)
    return -log_p.gather(-1, tokens[1:, None])[:, 0]


def kept_blocks(selection: Tensor, positions: Tensor, block: int) -> list[list[float]]:
    """Of the queries of each block, the share that keeps each key block.

    Args:
        selection: int32 ``[T, k]`` of one group, -1 where empty.
        positions: int64 ``[T]``.
        block: tokens per block.

    Returns:
        For each block of queries, in order, shares of the key blocks from the first to its own.
    """
    own = positions // block  # [T]
    count = int(own.max()) + 1
    held = selection >= 0
    cells = own[:, None] * count + selection
    kept = torch.bincount(cells[held], minlength=count * count).view(count, count)
    queries = torch.bincount(own, minlength=count).clamp(min=1)
    shares: list[list[float]] = (kept.double() / queries[:, None]).tolist()
    return [row[: i + 1] for i, row in enumerate(shares)]


@torch.inference_mode()
def measure_positions(
    model_dir: str = "",
    *,
    settings: Mapping[str, Any] | None = None,
    profile: str = "quick",
    device: str = "cpu",
    dtype: str = "float32",
    limit: int | None = None,
    attentions: Sequence[str] = ("dense", "msa"),
) -> list[Row]:
    """Rows of NLL by position, and of the blocks that were kept in the first text.

    Of the first :data:`TEXTS` texts of ``msa_perplexity``; arguments and shape of the rows as in
    :func:`msa_suites.quality.evaluate.evaluate`. ``nll`` has an item ``<text>/<position>`` for
    every :data:`BIN` tokens, nats per token. ``distinct`` has an item ``layer-0/group-0/block-0``:
    how many key blocks the queries of a block keep together; its ``raw`` is a row of
    :func:`kept_blocks`.
    """
    from msa.recording import Recorder
    from msa_suites.models.loading import EMBEDDED, load_model

    model, tokenizer = load_model(model_dir or str(EMBEDDED), device=device, dtype=dtype)
    refuse_own(model)
    chosen = settings_for(model, settings or {})
    items = load_items("msa_perplexity", profile=profile)[:TEXTS][:limit]
    rows: list[Row] = []
    for attention in attentions:
        recorder = Recorder()
        if attention == "dense":
            use_dense(model)
        else:
            use_msa(model, chosen, recorder=recorder)
        for item in items:
            recorder.records.clear()
            rows += _nll_rows(model, tokenizer.encode(item.prompt + item.answer), item, attention)
            if item is items[0]:
                for record in recorder:
                    rows += _block_rows(record, item)
    use_dense(model)
    return rows


def _nll_rows(model: Network, tokens: Sequence[int], item: Item, attention: str) -> Iterator[Row]:
    row = torch.tensor(list(tokens), device=model.device)
    nll = token_nll(model(row[None], use_cache=False).logits[0], row)
    for start in range(0, len(row), BIN):
        # The first token is given, not predicted.
        part = nll[max(start - 1, 0) : start + BIN - 1]
        yield _row("nll", f"{item.hash}/{start}", item, attention, float(part.mean()))


def _block_rows(record: Any, item: Item) -> Iterator[Row]:  # noqa: ANN401 - the subject's record
    for group in range(record.selection.shape[1]):
        shares = kept_blocks(record.selection[:, group], record.positions, record.block)
        for block, kept in enumerate(shares):
            name = f"layer-{record.layer}/group-{group}/block-{block}"
            distinct = float(sum(share > 0 for share in kept))
            yield _row("distinct", name, item, "msa", distinct) | {"raw": kept}


def _row(metric: str, name: str, item: Item, attention: str, value: float) -> Row:
    row = {"task": TASK, "metric": metric, "item": name, "cluster": item.cluster}
    return {**row, "attention": attention, "value": value}
