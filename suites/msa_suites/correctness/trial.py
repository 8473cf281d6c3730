"""One case against one subject: calls as the contract has them, judgement of what comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from msa.packing import block_columns
from msa.quantized import output_dtype
from msa_suites.case import Case
from msa_suites.correctness.diagnosis import Evidence, likely_cause, symptoms
from msa_suites.correctness.margins import as_mask, judge_selection
from msa_suites.correctness.material import Material
from msa_suites.correctness.passrule import Mismatch, compare
from msa_suites.correctness.subject import Arguments, Expected, Failed, Subject, structured
from msa_suites.inputs import TENSORS, Inputs


@dataclass
class Trial:
    """A case, what the judge knows of it, and the subject.

    Plain results are kept, so that two checks of one output cost one call.
    """

    case: Case
    material: Material
    subject: Subject
    _kept: dict[str, list[Tensor | None]] = field(default_factory=dict)
    _wrong: set[int] = field(default_factory=set)  # kept results that are wrong, by identity

    def arguments(
        self,
        operation: str,
        inputs: Inputs | None = None,
        *,
        material: Material | None = None,
        selection: Tensor | None = None,
        topk: int | None = None,
    ) -> Arguments:
        """Tensors and keywords of a packed operation, as the contract names them."""
        m = material or self.material
        x = inputs or m.inputs
        case = self.case
        lengths: dict[str, object] = {"cu_q": x.cu_q, "cu_k": x.cu_k}
        settings: dict[str, object] = {**case.settings, "topk": topk or case.topk}
        if operation == "block_scores":
            keywords = {"block": case.block, "scale": case.index_scale}
            return (x.q_idx, x.k_idx), lengths | keywords | x.factors("q_idx", "k_idx")
        if operation == "select_blocks":
            return (m.scores,), lengths | settings
        if operation == "sparse_attention":
            chosen = m.selection if selection is None else selection
            keywords = {"block": case.block, "scale": case.scale}
            return (x.q, x.k, x.v, chosen), lengths | keywords | x.factors("q", "k", "v")
        if operation == "attend":
            scales = {"scale": case.scale, "index_scale": case.index_scale}
            return x.tensors, lengths | settings | scales | x.factors(*TENSORS)
        raise ValueError(f"operation: wanted a packed one, got {operation!r}")

    def expected(self, operation: str, arguments: Arguments) -> tuple[Expected, ...]:
        """What the contract says of the result."""
        tensors, keywords = arguments
        case, first = self.case, tensors[0]
        if operation == "block_scores":
            cu_k = keywords["cu_k"]
            assert isinstance(cu_k, Tensor)
            shape = (len(first), case.Hkv, block_columns(cu_k, case.block))
            return (Expected("scores", shape, torch.float32),)
        if operation == "paged_block_scores":
            table = keywords["page_table"]
            assert isinstance(table, Tensor)
            shape = (*first.shape[:3], table.shape[1])
            return (Expected("scores", shape, torch.float32),)
        topk = keywords.get("topk", case.topk)
        assert isinstance(topk, int)
        chosen = (len(first), case.Hkv, topk)
        if operation == "select_blocks":
            return (Expected("selection", chosen, torch.int32),)
        if operation == "sparse_attention_backward":
            like = zip(("dq", "dk", "dv"), tensors[1:4], strict=True)
            return tuple(Expected(name, tuple(x.shape), x.dtype) for name, x in like)
        if operation == "index_kl":
            like = zip(("dq_idx", "dk_idx"), tensors[:2], strict=True)
            grads = (Expected(name, tuple(x.shape), torch.float32) for name, x in like)
            return (Expected("loss", (), torch.float32), *grads)
        out = Expected("out", tuple(first.shape), output_dtype(first))
        if operation == "attend_paged":
            chosen = (*first.shape[:2], case.Hkv, topk)
        if operation in ("attend", "attend_paged"):
            return (out, Expected("selection", chosen, torch.int32, optional=True))
        if operation == "combine":
            out = Expected("out", tuple(first.shape[1:]), torch.float32)
            return (out, Expected("lse", tuple(first.shape[1:-1]), torch.float32))
        return (out, Expected("lse", tuple(first.shape[:-1]), torch.float32, optional=True))

    def run(self, operation: str, arguments: Arguments) -> list[Tensor | None]:
        """Call and check the structure of the result."""
        result = self.subject.run(operation, *arguments)
        return structured(operation, result, self.expected(operation, arguments))

    def retained(
        self, operation: str, first: Arguments, second: Arguments
    ) -> list[Tensor | None] | None:
        """A first result as it stands after a second call; None where one can look here."""
        result = self.subject.retained(operation, first, second)
        if result is None:
            return None
        return structured(operation, result, self.expected(operation, first))

    def plain(self, operation: str) -> list[Tensor | None]:
        """The result on the case's own inputs, kept for the other checks."""
        if operation not in self._kept:
            self._kept[operation] = self.run(operation, self.arguments(operation))
        return self._kept[operation]

    def attend(self, inputs: Inputs, *, topk: int | None = None) -> tuple[Tensor, Tensor | None]:
        """``attend`` on other inputs than the case's."""
        out, selection = self.run("attend", self.arguments("attend", inputs, topk=topk))
        assert out is not None
        return out, selection

    def judge_attended(
        self,
        out: Tensor,
        selection: Tensor | None,
        *,
        material: Material | None = None,
        rows: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> None:
        """Judge (out, selection) of ``attend`` against the oracle.

        A returned selection must be one that the scores allow, and the output must follow from it.
        Without one, rows are compared whose selection no rounding can change.

        Args:
            out: ``[t, Hq, D]``.
            selection: int32 ``[t, Hkv, k]`` or None.
            material: whose oracle results; the case's own by default.
            rows: int64 ``[t]``, packed row of each row of ``out``; all by default.
            groups: bool ``[t, Hkv]``, what to compare; all by default.

        Raises:
            Failed: with the first wrong position and a likely cause.
        """
        m = material or self.material
        where = torch.arange(len(m.inputs.q)) if rows is None else rows
        wanted = torch.ones(len(where), self.case.Hkv, dtype=torch.bool)
        wanted = wanted if groups is None else groups
        truth, eager = m.truth[0], m.eager[0]
        if selection is None:
            wanted = wanted & m.clear[where]
        else:
            self._judge_returned(selection, m, where, wanted)
            columns = m.scores.shape[-1]
            same = (as_mask(selection, columns) == as_mask(m.selection[where], columns)).all(-1)
            if rows is None and groups is None and not bool(same.all()):
                truth, eager = m.truth_of(selection)[0], m.eager_of(selection)[0]
            else:
                wanted = wanted & same
        heads = wanted.repeat_interleave(self.case.group_size, 1)
        dtype = self.case.torch_dtype
        wrong = compare(out, truth[where], eager=eager[where], dtype=dtype, rows=heads)
        if wrong is not None:
            self.fail("output", wrong, Evidence(m, where, out=out, selection=selection))

    def _judge_returned(
        self, selection: Tensor, m: Material, where: Tensor, wanted: Tensor
    ) -> None:
        wrong = judge_selection(
            selection, m.scores[where], m.geometry.rows(where), m.tolerance[where], rows=wanted
        )
        if wrong is not None:
            self.fail("selection", wrong, Evidence(m, where, selection=selection))

    def fail(
        self,
        what: str,
        wrong: Mismatch,
        evidence: Evidence | None = None,
        *,
        cause: str | Callable[[], str] = "",
    ) -> None:
        """Raise :class:`Failed` for a mismatch.

        Args:
            what: which result.
            wrong: where and how far.
            evidence: what was computed, where a mistake can be played through.
            cause: likely cause, or what looks for it, where the check knows better.
        """
        look = ""
        try:
            cause = (cause() if callable(cause) else cause) or self._guess(wrong, evidence)
            packed = evidence is not None and len(wrong.rows) == len(evidence.material.inputs.q)
            starts = tuple(evidence.material.inputs.cu_q.tolist()) if evidence and packed else ()
            look = symptoms.look(wrong, starts)
        except Exception as error:
            # Whatever a guess stumbles over in odd numbers: the check has failed, and says so.
            found = cause if isinstance(cause, str) else ""
            text = f"{wrong}; no search for a cause: it ended in {type(error).__name__}: {error}"
            raise Failed(f"{what}: {text}", cause=found) from error
        raise Failed(f"{what}: {wrong}", cause=cause, look=look, judged=True)

    def _guess(self, wrong: Mismatch, evidence: Evidence | None) -> str:
        cause = self._remembered(wrong, evidence)
        if evidence is None or evidence.paged is None:
            # NaN on unused pages reaches such rows in another way too.
            cause = cause or symptoms.of_empty_rows(wrong)
        if evidence is not None:
            cause = cause or likely_cause(wrong, evidence)
        return cause

    def _remembered(self, wrong: Mismatch, evidence: Evidence | None) -> str:
        """Whether other inputs gave the very result that the case's own had given."""
        if evidence is None or wrong.got is None:
            return ""
        for result in self._kept.values():
            first = result[0]
            if first is None or id(first) in self._wrong:
                continue
            if first is evidence.out or first is evidence.scores:
                self._wrong.add(id(first))
                continue
            if first.shape == wrong.got.shape and torch.equal(first.double(), wrong.got):
                return "the result of an earlier call is returned: it is kept, or never written"
        return ""
