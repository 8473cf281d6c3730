"""What the pipelined kernels should take on a GPU: the resource that is used longest.

A kernel's work is counted for each thing that can hold it up; work over rate is a floor, and since
everything overlaps in a pipeline the largest floor is the prediction. It knows nothing of latency,
of tiles that are not full, and of what a driver adds: measured times lie above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from msa.cost import CostShape, attended_pairs, blocks_scored

#: Rows of every product (M of one matrix instruction), and tiles of one unit of attention.
_ROWS, _RUN = 128, 16
#: Operations on each logit beside its exponential: scaled, masked, compared, subtracted, summed,
#: converted; on each index score: compared.
_LOGIT_OPERATIONS, _SCORE_OPERATIONS = 6, 1
#: On each element of a cache below 16 bits, which is widened: converted and scaled, two at once.
_WIDENING = 1


@dataclass(frozen=True, slots=True)
class Device:
    """Rates of a GPU, a second, all of it.

    Attributes:
        tensor: operations of tensor cores on 16-bit operands, FLOP.
        memory: bytes of device memory.
        copies: bytes from the cache beside memory into the multiprocessors.
        exponentials: of the special function units.
        operations: float32 operations of one result that are no fused multiply-add.
    """

    tensor: float
    memory: float
    copies: float
    exponentials: float
    operations: float


def _device(tensor: float, memory: float, multiprocessors: int, clock: float) -> Device:
    # A multiprocessor of compute capability 9.0 or 10.0 makes 16 exponentials and 64 comparisons a
    # clock (CUDA C++ Programming Guide, arithmetic instructions), and takes 64 bytes of the cache.
    each = multiprocessors * clock
    return Device(tensor, memory, 64 * each, 16 * each, 64 * each)


#: Dense rates and memory of NVIDIA's data sheets (DGX B200, H100 SXM5), clocks when boosted.
DEVICES = {
    "B200": _device(2.25e15, 8.0e12, 148, 1.85e9),
    "H100": _device(0.989e15, 3.35e12, 132, 1.755e9),
}


@dataclass(frozen=True, slots=True)
class Prediction:
    """One kernel at one length.

    Attributes:
        kernel: what it is used for, and its name.
        length: tokens.
        seconds: predicted.
        bound: the resource that takes as long.
        budget: seconds of each resource, as in :class:`Device`.
    """

    kernel: str
    length: int
    seconds: float
    bound: str
    budget: dict[str, float]

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def predictions(shape: CostShape, lengths: Sequence[int], device: Device) -> list[Prediction]:
    """Every kernel of a prefill, and of decoding one token of one request, at each length."""
    kernels = {
        "prefill: score_blocks": _scores,
        "prefill: attend_units": _attention,
        "prefill: merge_tile": _merge,
        "decode: score_blocks": _decode_scores,
        "decode: attend_pages": _decode,
    }
    return [
        _predicted(name, length, work(shape, length), device)
        for length in lengths
        for name, work in kernels.items()
    ]


def _predicted(kernel: str, length: int, work: Device, device: Device) -> Prediction:
    rates, amounts = asdict(device), asdict(work)
    budget = {name: amounts[name] / rates[name] for name in rates}
    bound = max(budget, key=lambda name: budget[name])
    return Prediction(kernel, length, budget[bound], bound, budget)


def _widening(elements: float, element_bytes: float) -> float:
    """Operations on elements of a cache; queries have 16 bits."""
    return _WIDENING * elements if element_bytes < 2 else 0.0


def _scores(shape: CostShape, length: int) -> Device:
    """Index products of all queries with all earlier keys, a maximum a block."""
    products = blocks_scored(length, shape.block) * shape.kv_heads / _ROWS  # tiles times blocks
    columns = _ROWS * shape.block
    elements = shape.block * shape.index_dim
    keys = elements * shape.index_element_bytes
    scores = 4 * shape.kv_heads * blocks_scored(length, shape.block)
    read = length * shape.index_dim * (shape.kv_heads * 2 + shape.index_element_bytes)
    return Device(
        tensor=2 * columns * shape.index_dim * products,
        memory=scores + read,
        copies=keys * products,
        exponentials=0.0,
        operations=(_SCORE_OPERATIONS * columns + _widening(elements, shape.index_element_bytes))
        * products,
    )


def _attention(shape: CostShape, length: int) -> Device:
    """Both products, the partial outputs of every slot, and the queries gathered for each."""
    pairs = attended_pairs(length, block=shape.block, topk=shape.topk) * shape.q_heads
    rows = pairs / shape.block  # of all products
    gathered = rows * shape.dim * 2
    elements = rows / (_ROWS * _RUN) * 2 * shape.block * shape.dim
    blocks = elements * shape.element_bytes
    return Device(
        tensor=4 * pairs * shape.dim,
        memory=gathered + rows * shape.dim * 2 + blocks,
        copies=gathered + blocks,
        exponentials=float(pairs),
        operations=_LOGIT_OPERATIONS * pairs + _widening(elements, shape.element_bytes),
    )


def _merge(shape: CostShape, length: int) -> Device:
    """The partial outputs read, and the outputs written."""
    pairs = attended_pairs(length, block=shape.block, topk=shape.topk) * shape.q_heads
    read = pairs / shape.block * shape.dim * 2
    written = length * shape.q_heads * shape.dim * 2
    elements = read / 2
    return Device(0.0, read + written, read, 0.0, 2 * elements)


def _decode_scores(shape: CostShape, length: int) -> Device:
    """One query against all index keys, in products of 128 rows of which the groups count."""
    columns = _ROWS * length
    elements = length * shape.index_dim
    keys = elements * shape.index_element_bytes
    return Device(
        tensor=2.0 * columns * shape.index_dim,
        memory=keys,
        copies=keys,
        exponentials=0.0,
        operations=_SCORE_OPERATIONS * columns + _widening(elements, shape.index_element_bytes),
    )


def _decode(shape: CostShape, length: int) -> Device:
    """One query: its selected pages, with products of 128 rows of which a group's heads count."""
    slots = min(shape.topk, -(-length // shape.block)) * shape.kv_heads
    logits = slots * _ROWS * shape.block
    elements = slots * 2 * shape.block * shape.dim
    pages = elements * shape.element_bytes
    outputs = slots * (shape.q_heads / shape.kv_heads) * shape.dim * 2
    return Device(
        tensor=4.0 * logits * shape.dim,
        memory=pages + outputs,
        copies=pages,
        exponentials=float(logits),
        operations=_LOGIT_OPERATIONS * logits + _widening(elements, shape.element_bytes),
    )
