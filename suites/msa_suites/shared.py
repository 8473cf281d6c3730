"""Imports that workers of one installation share: those of transformers and lm-eval take seconds.

Where nothing is timed, a worker may be forked from a process that has them, and holds nothing that
is under test.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from msa_harness.forked import sharing
from msa_suites import READS_MODEL
from msa_suites.session import Session

#: What takes a worker seconds to import and is nobody's code under test.
SHARED = (
    "msa_harness.worker",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.llama.modeling_llama",
    "torch._dynamo",  # torch's counter of operations imports it
    "lm_eval.evaluator",
    "lm_eval.models.huggingface",
    "lm_eval.tasks",
)
_LEAST_TIMEOUT = 60.0


@contextmanager
def shared_imports(session: Session, suites: Iterable[str]) -> Iterator[Session]:
    """The session for suites in which a model runs; its workers share imports where they can.

    They can on a CPU, where all sides are checkouts that run in the judge's own Python; from
    elsewhere a side may bring another torch.
    """
    sides = session.sides.values()
    own = all(s.subject.python == sys.executable and "msa" in s.attested for s in sides)
    # The first worker waits for all these imports.
    soon = session.device == "cpu" and session.timeout >= _LEAST_TIMEOUT
    if session.forked or not own or not soon or READS_MODEL.isdisjoint(suites):
        yield session
        return
    with sharing(SHARED):
        yield replace(session, forked=True)
