"""Settings of MSA and of the retrofit: right ones come back as they were, wrong ones are named."""

from __future__ import annotations

import json
import types
from dataclasses import asdict, dataclass, fields

from fuzz_judging import assert_refused
from hypothesis import strategies as st

from msa.config import MSAConfig
from msa.retrofit_settings import RetrofitSettings
from msa.scorers import SCORERS

_NO_COUNTS = st.sampled_from([0, -1, True, 1.0, 2.5, "4", None, [4], float("nan")])
_NO_NUMBERS = st.sampled_from([True, 1.5, "0", None, [0], float("inf")])
_SIZES = st.integers(1, 2**20)

#: MSA's names -> MiniMax-M3's.
M3 = {
    "block": "sparse_block_size",
    "topk": "sparse_topk_blocks",
    "local_blocks": "sparse_local_block",
    "sink_blocks": "sparse_init_block",
    "index_dim": "sparse_index_dim",
    "sparse_layers": "sparse_attention_freq",
}


@dataclass(frozen=True)
class Settings:
    """Values for the fields of a kind of settings; ``wrong`` names the field that cannot be."""

    values: dict[str, object]
    wrong: str = ""


@st.composite
def _budget(draw):
    local, sinks = draw(st.integers(1, 5)), draw(st.integers(0, 5))
    return {
        "block": draw(_SIZES),
        "topk": local + sinks + draw(st.integers(0, 99)),
        "local_blocks": local,
        "sink_blocks": sinks,
    }


@st.composite
def _maybe_wrong(draw, right, broken):
    """Right values, or in half of the cases with one of them broken."""
    values = draw(right)
    if not draw(st.booleans()):
        return Settings(values)
    name = draw(st.sampled_from(sorted(broken)))
    return Settings({**values, name: draw(broken[name])}, name)


_LAYERS = st.lists(st.booleans(), max_size=6).map(tuple)
CONFIGS = _maybe_wrong(
    st.builds(
        lambda budget, dim, layers: {**budget, "index_dim": dim, "sparse_layers": layers},
        _budget(),
        _SIZES,
        _LAYERS,
    ),
    {
        "block": _NO_COUNTS,
        "topk": _NO_COUNTS,
        "local_blocks": _NO_COUNTS | st.just(10**6),
        "sink_blocks": _NO_COUNTS.filter(lambda x: x is True or x != 0) | st.just(10**6),
        "index_dim": _NO_COUNTS,
        "sparse_layers": st.sampled_from([None, "101", 3, (2,), ("1",), (None,), (0.5,)]),
    },
)
RETROFITS = _maybe_wrong(
    st.builds(
        lambda budget, scorer, seed, dense: {
            **budget,
            "scorer": scorer,
            "seed": seed,
            "dense_layers": dense,
        },
        _budget(),
        st.sampled_from(sorted(SCORERS)),
        st.integers(-(2**40), 2**40),
        st.lists(st.integers(0, 90), max_size=4).map(tuple),
    ),
    {
        "block": _NO_COUNTS,
        "topk": _NO_COUNTS,
        "local_blocks": _NO_COUNTS | st.just(10**6),
        "sink_blocks": _NO_COUNTS.filter(lambda x: x is True or x != 0) | st.just(10**6),
        "scorer": st.sampled_from(["", "maxx", "MAX", None, 3, ["max"], {"max": 1}, True]),
        "seed": _NO_NUMBERS,
        "dense_layers": st.sampled_from([3, None, "02", (1.0,), ("0",), (None,), (True,)]),
    },
)


def _names(wrong, spelled):
    """The field, or k where the forced blocks do not fit into it."""
    forced = wrong in ("local_blocks", "sink_blocks")
    return {spelled(wrong)} | ({"topk", spelled("topk")} if forced else set())


def check_config(settings: Settings):
    """MSAConfig, by itself and from the entries of a MiniMax-M3 configuration."""
    entries = {M3[name]: value for name, value in settings.values.items()}
    if settings.wrong:
        names = _names(settings.wrong, str)
        assert_refused(lambda: MSAConfig(**settings.values), names, f"MSAConfig {settings.wrong}")
        names = _names(settings.wrong, M3.__getitem__)
        assert_refused(lambda: MSAConfig.from_m3(entries), names, f"M3 {settings.wrong}")
        return
    config = MSAConfig(**settings.values)
    assert asdict(config) == settings.values
    assert MSAConfig.from_m3(json.loads(json.dumps(entries))) == config
    as_numbers = [int(layer) for layer in config.sparse_layers]  # as the released model has them
    assert MSAConfig.from_m3({**entries, "sparse_attention_freq": as_numbers}) == config
    assert config.budget_tokens == config.topk * config.block


def check_retrofit(settings: Settings):
    """RetrofitSettings, by themselves and through a model's configuration and a JSON file."""
    if settings.wrong:
        names = _names(settings.wrong, str)
        assert_refused(
            lambda: RetrofitSettings(**settings.values), names, f"retrofit {settings.wrong}"
        )
        stored = {f"msa_{name}": value for name, value in settings.values.items()}
        if settings.values[settings.wrong] != (None,):
            assert_refused(
                lambda: RetrofitSettings.from_config(types.SimpleNamespace(**stored)),
                names,
                f"configuration {settings.wrong}",
            )
        return
    made = RetrofitSettings(**settings.values)
    assert asdict(made) == settings.values
    config = types.SimpleNamespace()
    made.write(config)
    assert set(vars(config)) == {f"msa_{f.name}" for f in fields(made)}
    assert RetrofitSettings.from_config(config) == made
    read = types.SimpleNamespace(**json.loads(json.dumps(vars(config))))
    assert RetrofitSettings.from_config(read) == made
