"""What an implementation offers: its operations, and the record that says what it cannot run.

An implementation is a module or an object with some of :data:`OPERATIONS`. Its optional
``CAPABILITIES`` is a mapping with the keys of :class:`Capabilities`; a key that is missing means
"no limit". A check outside them is skipped with that reason, one inside must pass.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

OPERATIONS = (
    "block_scores",
    "paged_block_scores",
    "select_blocks",
    "sparse_attention",
    "sparse_decode",
    "combine",
    "sparse_attention_backward",
    "index_kl",
    "attend",
    "attend_paged",
)

_LISTS = (
    "dtypes",
    "devices",
    "layouts",
    "head_dims",
    "index_dims",
    "packed_dims",
    "block_sizes",
    "topk_values",
    "group_sizes",
)
_FLAGS = ("nan_scores", "sink_blocks", "exact_scores", "left_padding", "paged", "packed")
_WORDS = ("tie_rule",)
_DTYPES = {
    "fp64": "float64",
    "double": "float64",
    "fp32": "float32",
    "float": "float32",
    "fp16": "float16",
    "half": "float16",
    "bf16": "bfloat16",
}


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an implementation can run. None means that nothing limits it.

    Attributes:
        operations: names of the operations that it has.
        dtypes: of the floating inputs, such as ``float32``.
        devices: device types, such as ``cpu``.
        layouts: ``packed`` (cu_q, cu_k), ``paged`` (page tables) or both.
        head_dims: values of D.
        index_dims: values of Di.
        packed_dims: values of D of keys and values in NVFP4, and of Di of such index keys.
        block_sizes: values of Bk.
        topk_values: values of k.
        group_sizes: values of R, query heads per group.
        nan_scores: whether a NaN score ranks last instead of being undefined.
        sink_blocks: whether first blocks can be forced.
        exact_scores: whether block scores are accumulated in float32.
        left_padding: whether a padded batch is understood.
        tie_rule: which of two equal blocks is kept; "" when any may be.
    """

    operations: frozenset[str]
    dtypes: frozenset[str] | None = None
    devices: frozenset[str] | None = None
    layouts: frozenset[str] | None = None
    head_dims: frozenset[int] | None = None
    index_dims: frozenset[int] | None = None
    packed_dims: frozenset[int] | None = None
    block_sizes: frozenset[int] | None = None
    topk_values: frozenset[int] | None = None
    group_sizes: frozenset[int] | None = None
    nan_scores: bool = True
    sink_blocks: bool = True
    exact_scores: bool = True
    left_padding: bool = True
    tie_rule: str = ""

    @classmethod
    def parse(cls, record: Mapping[str, object], operations: Iterable[str]) -> Capabilities:
        """Read a ``CAPABILITIES`` mapping. Keys of the owner's own are left alone.

        Raises:
            ValueError: a key that is nearly one of ours, or an operation of no such name.
            TypeError: a value of the wrong type; the message names the key.
        """
        for name in operations:
            if name not in OPERATIONS:
                raise ValueError(f"operations: wanted some of {', '.join(OPERATIONS)}, got {name}")
        known = (*_LISTS, *_FLAGS, *_WORDS)
        values: dict[str, Any] = {}
        for key, value in record.items():
            name = key.lower().replace(" ", "_")
            if name not in known:
                near = difflib.get_close_matches(name, known, n=2, cutoff=0.75)
                if near:
                    raise ValueError(f"CAPABILITIES: wanted {' or '.join(near)}, got {key!r}")
                continue
            if name in _LISTS:
                values[name] = _members(key, value)
            elif name in _FLAGS:
                if not isinstance(value, bool):
                    raise TypeError(f"CAPABILITIES[{key!r}]: wanted true or false, got {value!r}")
                values[name] = value
            elif not isinstance(value, str):
                raise TypeError(f"CAPABILITIES[{key!r}]: wanted a string, got {value!r}")
            else:
                values[name] = value
        denied = {name for name in ("paged", "packed") if values.pop(name, True) is False}
        if denied:
            values["layouts"] = frozenset({"packed", "paged"}) - denied
        return cls(operations=frozenset(operations), **values)

    def with_promises_of(self, base: Capabilities) -> Capabilities:
        """These and those of ``base``: a change may add to what is offered, and not take away."""
        joined: dict[str, Any] = {}
        for name in _LISTS:
            own, others = getattr(self, name), getattr(base, name)
            joined[name] = None if own is None or others is None else own | others
        for name in set(_FLAGS) & {field.name for field in fields(self)}:
            joined[name] = getattr(self, name) or getattr(base, name)
        return replace(
            self,
            operations=self.operations | base.operations,
            tie_rule=base.tie_rule or self.tie_rule,
            **joined,
        )

    def why_not(self, *, sinks: int = 0, **wanted: str | int) -> str | None:
        """Why a case is outside of these capabilities, or None.

        Args:
            sinks: forced first blocks of the case.
            wanted: ``dtype``, ``device``, ``layout``, ``head_dim``, ``index_dim``, ``packed_dim``,
                ``block_size``, ``topk_value`` or ``group_size`` of the case.
        """
        for name, value in wanted.items():
            allowed = getattr(self, f"{name}s")
            if allowed is not None and value not in allowed:
                listed = ", ".join(map(str, sorted(allowed))) or "none"
                return f"{name.replace('_', ' ')} {value}: its capabilities are {listed}"
        if sinks and not self.sink_blocks:
            return f"sink_blocks {sinks}: its capabilities exclude forced first blocks"
        return None

    def as_dict(self) -> dict[str, object]:
        """Plain data; :meth:`parse` reads it back."""
        record: dict[str, object] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "operations" and value is not None:
                record[field.name] = sorted(value) if isinstance(value, frozenset) else value
        return record


def _members(key: str, value: object) -> frozenset[str] | frozenset[int]:
    numeric = key.lower().replace(" ", "_") not in ("dtypes", "devices", "layouts")
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise TypeError(f"CAPABILITIES[{key!r}]: wanted a list, got {value!r}")
    items = list(value)
    if numeric:
        if not all(isinstance(item, int) and not isinstance(item, bool) for item in items):
            raise TypeError(f"CAPABILITIES[{key!r}]: wanted a list of ints, got {items!r}")
        return frozenset(items)
    # A torch.dtype prints as "torch.float32".
    names = (str(item).removeprefix("torch.") for item in items)
    return frozenset(_DTYPES.get(name, name) for name in names)
