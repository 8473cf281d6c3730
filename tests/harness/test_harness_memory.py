"""The count of a call's bytes: exact, whatever earlier calls left behind."""

import torch

from msa_harness.memory import Memory, memory_of

SIZE = 125  # of float32


def block() -> torch.Tensor:
    return torch.empty(SIZE)


def test_bytes_of_a_call_are_its_results_its_peak_and_what_it_keeps():
    kept = []

    def call():
        kept.append(block())
        return block().add_(1), block()

    assert memory_of(call) == Memory(peak=3 * 4 * SIZE, held=4 * SIZE)


def test_blocks_of_an_earlier_count_do_not_lend_their_sizes_to_others():
    held = []

    def keep():
        held.extend(block() for _ in range(500))

    memory_of(keep)
    counted = {one.data_ptr() for one in held}
    held.clear()
    held.extend(block() for _ in range(2000))
    assert counted & {one.data_ptr() for one in held}  # else this test shows nothing

    def exchange():
        held.clear()
        return torch.empty(1000)

    assert memory_of(exchange) == Memory(peak=4000, held=0)
