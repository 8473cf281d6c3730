"""The embedded model's tokenizer: one token a byte, vocabulary id == byte value."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.pre_tokenizers import ByteLevel

from msa_suites.models.architecture import PAD_BYTE, VOCABULARY

#: The token that ends and pads: the character of byte 0.
END = chr(PAD_BYTE)


def byte_symbols() -> list[str]:
    """The printable character that stands for each byte in a byte-level vocabulary, by byte.

    Bytes that are visible in Latin-1 stand for themselves; the others take code points from 256
    on, in order (the GPT-2 convention that ``tokenizers`` follows).
    """
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    symbols, spare = [], 256
    for byte in range(256):
        symbols.append(chr(byte if byte in visible else spare))
        spare += byte not in visible
    return symbols


def build_tokenizer() -> Tokenizer:
    """A byte-level BPE without merges: every byte is its own token."""
    symbols = byte_symbols()
    assert set(symbols) == set(ByteLevel.alphabet()) and len(symbols) == VOCABULARY
    # Byte 0 keeps its own name: a stand-in would make a special token of an ordinary letter.
    symbols[PAD_BYTE] = END
    vocabulary = {symbol: byte for byte, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END, normalized=False, special=True)])
    return tokenizer


def write_tokenizer(directory: Path, *, max_length: int) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` for ``AutoTokenizer``.

    Args:
        directory: the model's directory; it must exist.
        max_length: longest sequence of the model, in tokens.

    Raises:
        FileNotFoundError: there is no such directory.
    """
    if not directory.is_dir():
        raise FileNotFoundError(f"directory: wanted a model directory, got {directory}")
    build_tokenizer().save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": END,
        "eos_token": END,
        "bos_token": None,
        "unk_token": None,
        "model_max_length": max_length,
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
