"""Settings as they are written in a checkpoint, and where nothing is written."""

from __future__ import annotations

from msa_harness.client import Worker
from msa_suites.method.checks import first

_SUBJECT = "msa_suites.method.subject_settings"
#: MiniMax-M3's own entry, with other numbers: none of them is a default.
_ENTRY = {
    "use_sparse_attention": True,
    "sparse_index_dim": 96,
    "sparse_topk_blocks": 12,
    "sparse_block_size": 64,
    "sparse_init_block": 2,
    "sparse_local_block": 3,
    "sparse_score_type": "max",
    "sparse_attention_freq": [0, 1, 1, 0],
}
_READ: dict[str, object] = {
    "block": 64,
    "topk": 12,
    "local_blocks": 3,
    "sink_blocks": 2,
    "index_dim": 96,
    "sparse_layers": (False, True, True, False),
    "budget_tokens": 768,
}
#: What stands where nothing is said: the paper's settings, MiniMax-M3's layer, the retrofit's sink.
_DEFAULTS: dict[str, dict[str, object]] = {
    "msa.config:MSAConfig": {
        "block": 128,
        "topk": 16,
        "local_blocks": 1,
        "sink_blocks": 0,
        "index_dim": 128,
        "sparse_layers": (),
    },
    "msa.layer:LayerShape": {
        "hidden_size": 6144,
        "q_heads": 64,
        "kv_heads": 4,
        "head_dim": 128,
        "rotary_dim": 64,
        "theta": 5e6,
        "eps": 1e-6,
    },
    "msa.retrofit_settings:RetrofitSettings": {
        "block": 128,
        "topk": 16,
        "local_blocks": 1,
        "sink_blocks": 1,
        "scorer": "max",
        "dense_layers": (),
    },
}


def check_config(worker: Worker) -> str:
    """MiniMax-M3's settings are read as they are written; defaults are the paper's."""
    worker.load("read_settings", f"{_SUBJECT}:read_settings")
    worker.load("defaults", f"{_SUBJECT}:defaults")
    read = worker.call("read_settings", "", [_ENTRY])
    asked: list[tuple[str, dict[str, object], dict[str, object]]] = [("read", read, _READ)]
    asked += [(of, worker.call("defaults", "", [of]), want) for of, want in _DEFAULTS.items()]
    return first(
        f"{of}: {name}: wanted {value}, got {got.get(name)}"
        for of, got, want in asked
        for name, value in want.items()
        if got.get(name) != value
    )
