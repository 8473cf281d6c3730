from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from msa_suites.models.tokenizer import byte_symbols, write_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(directory, max_length=4096)
    return AutoTokenizer.from_pretrained(directory)


def test_every_ascii_byte_is_its_own_token(tokenizer):
    for byte in range(128):
        assert tokenizer.encode(chr(byte)) == [byte]
        assert tokenizer.decode([byte]) == chr(byte)


def test_every_byte_of_utf8_round_trips(tokenizer):
    # Two-, three- and four-byte characters together contain every byte that UTF-8 has.
    points = [*range(0x80, 0x800, 7), *range(0x800, 0xD800, 601), *range(0x10000, 0x110000, 40_001)]
    text = "".join(map(chr, points))
    data = text.encode()
    assert set(range(0x80, 0xC0)) <= set(data)
    tokens = tokenizer.encode(text)
    assert tokens == list(data)
    assert tokenizer.decode(tokens) == text


@pytest.mark.parametrize(
    "text", ["", " a  b ", "\n\n  x", "a\tb", "@ab=42;?ab=", "Ā\x00Ġ", "don't"]
)
def test_tokens_are_bytes(tokenizer, text):
    tokens = tokenizer.encode(text)
    assert tokens == list(text.encode())
    assert len(tokens) == len(text.encode())
    assert tokenizer.decode(tokens) == text


def test_byte_zero_ends_and_pads(tokenizer):
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == 0
    assert tokenizer.bos_token_id is None
    assert len(tokenizer) == tokenizer.vocab_size == 256
    assert tokenizer.model_max_length == 4096


def test_symbols_are_distinct():
    assert len(set(byte_symbols())) == 256


def test_missing_directory_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"wanted a model directory, got .*nowhere"):
        write_tokenizer(tmp_path / "nowhere", max_length=1)
