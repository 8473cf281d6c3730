"""Choosing a model's attention, dense or MSA, on one set of weights.

The only place of the suites that speaks to ``msa.retrofit``. It imports it when called: in a
worker process ``msa`` is the subject's, not the judge's. A model that has MSA of its own
(MiniMax-M3) gets no retrofit: there ``msa`` is the model as it is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias

from msa_suites.models.minimax_m3 import keep_blocks, own_values

#: A causal language model of transformers, which ships no types.
Network: TypeAlias = Any

#: Entry of a model's configuration that describes its trained index branch.
INDEX_ENTRY = "index_branch"
#: Operations that the retrofit calls, layer by layer.
_NEEDED = ("block_scores", "select_blocks", "sparse_attention")


def why_not(offered: Iterable[str]) -> str:
    """Why the retrofit cannot use an implementation with these operations; empty where it can."""
    absent = sorted({*_NEEDED} - {*offered})
    return f"it has no {', '.join(absent)}" if absent else ""


@dataclass(frozen=True, slots=True)
class MsaSettings:
    """Settings of the training-free retrofit; the defaults are the gate's, for the embedded model.

    k 4 with sink and local block forced leaves two free slots, where a damaged selection shows (a
    generous k would hide it).

    Attributes:
        scorer: name of a block scorer.
        topk: blocks kept per query and group; forced blocks take their slots from it.
        block: tokens per block.
        sink_blocks: first blocks that are always kept.
        local_blocks: newest blocks that are always kept.
        seed: of the scorer ``random``.
        dense_layers: layers that stay dense.
        implementation: name from the table of ``msa_kernels``, or ``module:object``.
    """

    scorer: str = "max"
    topk: int = 4
    block: int = 32
    sink_blocks: int = 1
    local_blocks: int = 1
    seed: int = 0
    dense_layers: tuple[int, ...] = ()
    implementation: str = "torch"

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> MsaSettings:
        """Settings from plain data; ``dense_layers`` may be a number, a list, or ``"0+2"``.

        Raises:
            ValueError: an unknown name, with near matches.
        """
        known = [field.name for field in fields(cls)]
        for name in settings:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=2) or known
                raise ValueError(f"settings: wanted one of {', '.join(near)}, got {name!r}")
        values = dict(settings)
        if "dense_layers" in values:
            values["dense_layers"] = _layers(values["dense_layers"])
        return cls(**values)

    @property
    def budget(self) -> int:
        """Tokens that a query may attend at most; MSA is dense attention up to this context."""
        return self.topk * self.block

    def as_dict(self) -> dict[str, Any]:
        """Plain data that :meth:`from_mapping` reads back."""
        return {**asdict(self), "dense_layers": list(self.dense_layers)}


def _layers(value: object) -> tuple[int, ...]:
    if isinstance(value, str):
        return tuple(int(part) for part in value.split("+") if part)
    if isinstance(value, int):
        return (value,)
    if isinstance(value, list | tuple):
        return tuple(int(layer) for layer in value)
    raise ValueError(f"dense_layers: wanted layers as 0, [0, 2] or '0+2', got {value!r}")


def own_settings(model: Network) -> MsaSettings | None:
    """Settings of the MSA that ``model`` has without a retrofit; None where it has none."""
    values = own_values(model)
    return None if values is None else MsaSettings(**values)


def trained_settings(model: Network) -> dict[str, Any]:
    """The MSA that the model's index branch was trained in; empty where it has none."""
    found = getattr(getattr(model, "config", None), INDEX_ENTRY, None)
    return {} if found is None else {"scorer": "index", **found["settings"]}


def settings_for(model: Network, given: Mapping[str, Any]) -> MsaSettings:
    """The settings that ``model`` gets where ``given`` is asked for.

    Args:
        model: a causal language model of transformers.
        given: fields of :class:`MsaSettings`; the others are the defaults, those that the model's
            index branch was trained in, or those of MSA of its own.

    Raises:
        ValueError: an unknown name, or a value that is not that of the model's own MSA.
    """
    own = own_settings(model)
    if own is None:
        return MsaSettings.from_mapping({**trained_settings(model), **given})
    _check_own(own, MsaSettings.from_mapping({**own.as_dict(), **given}))
    return own


def _check_own(own: MsaSettings, asked: MsaSettings) -> None:
    for name, value in asdict(own).items():
        if (other := getattr(asked, name)) != value:
            raise ValueError(
                f"{name}: wanted nothing or {value!r}, which the model's own sparse attention has, "
                f"got {other!r}: it takes no retrofit"
            )


def use_dense(model: Network) -> None:
    """Give ``model`` the dense attention it was loaded with, or dense attention in place of MSA.

    A model with MSA of its own keeps every block then: the same weights, dense.
    """
    if own_settings(model) is not None:
        keep_blocks(model, every=True)
        return
    from msa.retrofit import remove_retrofit

    remove_retrofit(model)


def use_msa(
    model: Network,
    settings: MsaSettings,
    *,
    recorder: Any = None,  # noqa: ANN401 - a msa.recording.Recorder of the subject
) -> None:
    """Give ``model`` sparse attention: its own, or else the training-free retrofit.

    Raises:
        ValueError: no such implementation, or the retrofit refuses the settings; or the model has
            MSA of its own, with other settings or with nothing that records.
    """
    own = own_settings(model)
    if own is not None:
        _check_own(own, settings)
        if recorder is not None:
            raise ValueError(
                "recorder: wanted none, because the model's own sparse attention has no place for "
                f"one, got {type(recorder).__name__}"
            )
        keep_blocks(model, every=False)
        return
    from msa.retrofit import apply_retrofit, remove_retrofit
    from msa.retrofit_settings import RetrofitSettings
    from msa_kernels import load

    values = asdict(settings)
    operations = load(values.pop("implementation"))
    remove_retrofit(model)
    apply_retrofit(model, RetrofitSettings(**values), operations=operations, recorder=recorder)
