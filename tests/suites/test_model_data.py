from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msa_suites.models import facts
from msa_suites.models.text import Corpus, clean, load_corpus
from msa_suites.models.training_data import ANSWER, IGNORED, TEXT, make_sequence

TEXT_BYTES = np.frombuffer(b"the quick brown fox; " * 2000, dtype=np.uint8)


@given(st.binary(max_size=200))
def test_clean_text_has_no_marks_and_only_ascii(raw):
    kept = clean(raw)
    assert b"@" not in kept
    assert b"?" not in kept
    assert all(b == 10 or 32 <= b < 127 for b in kept)


def test_corpus_splits_by_file_and_is_stable(tmp_path):
    for i in range(120):
        (tmp_path / f"m{i}.py").write_text(f"# file {i}\n" + "x = 1\n" * 3000)
    one, two = load_corpus(tmp_path), load_corpus(tmp_path)
    assert one.sha256 == two.sha256
    assert len(one.train) > len(one.held_out) > 65_536
    (tmp_path / "m0.py").write_text("changed\n" * 3000)
    assert load_corpus(tmp_path).sha256 != one.sha256


def test_too_little_text_is_refused(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(FileNotFoundError, match="wanted at least 64 KiB"):
        load_corpus(tmp_path)


@given(st.integers(0, 2**32 - 1), st.sampled_from([64, 128, 500, 2048]))
def test_every_query_has_its_fact_before_it_and_the_right_answer(seed, length):
    sequence = make_sequence(TEXT_BYTES, np.random.default_rng(seed), length, plain_share=0.0)
    text = sequence.tokens.tobytes().decode()
    assert len(text) == len(sequence.kind) == length
    stated: dict[str, list[str]] = {}
    at = 0
    while at < length:
        if text[at] == "@":
            stated.setdefault(text[at + 1 : at + 3], []).append(text[at + 4 : at + 6])
        elif text[at] == "?":
            assert text[at + 4 : at + 6] in stated[text[at + 1 : at + 3]]
            kinds = sequence.kind[at : at + 7].tolist()
            assert kinds[:4] == [IGNORED, IGNORED, IGNORED, TEXT]
            assert kinds[5] == ANSWER
        at += 1
    assert stated


@given(st.integers(0, 2**32 - 1))
def test_values_of_one_key_are_told_apart_by_their_first_digit(seed):
    drawn = facts.draw_values_of_one_key(np.random.default_rng(seed), 4)
    assert len({fact.key for fact in drawn}) == 1
    assert len({fact.value[0] for fact in drawn}) == 4


@given(st.integers(0, 2**32 - 1))
def test_similar_keys_differ_in_one_letter(seed):
    drawn = facts.draw_similar_facts(np.random.default_rng(seed), 6)
    keys = {fact.key for fact in drawn}
    assert len(keys) == 6
    assert len({key[0] for key in keys}) == 1 or len({key[1] for key in keys}) == 1


def test_splice_keeps_the_length_and_the_order():
    text = np.frombuffer(b"abcdefghij", np.uint8)
    assert facts.splice(text, [b"2", b"1"], [5, 2], 8) == b"ab1cde2f"
    with pytest.raises(ValueError, match="wanted 20 bytes, got 10 of text and 1 of inserts"):
        facts.splice(text, [b"1"], [0], 20)


def test_corpus_is_a_value():
    assert Corpus(TEXT_BYTES, TEXT_BYTES, "x").sha256 == "x"
