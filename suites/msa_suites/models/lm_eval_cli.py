"""lm-eval's own command line, with this suite's model class and tasks.

    python -m msa_suites.models.lm_eval_cli --model msa --model_args topk=4 --tasks msa_facts

takes every option of ``lm-eval``; ``--metadata '{"profile": "full"}'`` chooses the items.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from lm_eval.__main__ import cli_evaluate

import msa_suites.models.lm  # noqa: F401 - registers the model class "msa"
from msa_suites import quality
from msa_suites.quality.errors import QualityInvalid

TASKS = Path(quality.__file__).parent / "tasks"
EXIT_INVALID = 4


def main() -> int:
    """Run lm-eval; 4 when the measurement would say nothing (:class:`QualityInvalid`)."""
    if "--include_path" not in sys.argv:
        sys.argv += ["--include_path", str(TASKS)]
    if "--device" not in sys.argv:
        # lm-eval would say cuda whether there is one or not.
        sys.argv += ["--device", "cuda" if torch.cuda.is_available() else "cpu"]
    try:
        cli_evaluate()
    except QualityInvalid as error:
        print(f"INVALID: {error}", file=sys.stderr)
        return EXIT_INVALID
    return 0


if __name__ == "__main__":
    sys.exit(main())
