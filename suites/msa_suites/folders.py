"""Where processes import from: folders of the subject's checkout, and the judge's own."""

from __future__ import annotations

import sys
from pathlib import Path

#: Folders of a checkout that a subject's code is imported from.
SUBJECT_ENTRIES = ("", "kernels")


def judge_paths(*, with_method: bool) -> tuple[Path, ...]:
    """The judge's own import folders, for a worker.

    Args:
        with_method: also ``msa`` and ``msa_kernels``, where the subject is not this repository.
    """
    import msa
    import msa_kernels
    import msa_suites

    modules = [msa_suites, msa, msa_kernels] if with_method else [msa_suites]
    folders = [Path(str(module.__file__)).resolve().parents[1] for module in modules]
    installed = Path(sys.prefix).resolve()
    if not with_method and any(folder.is_relative_to(installed) for folder in folders):
        raise ValueError(
            "judge: wanted a checkout or an editable install (pip install -e .) to compare "
            f"revisions, got packages installed below {installed}, where the subject's own "
            "packages cannot be told apart from the judge's"
        )
    return tuple(dict.fromkeys(folders))
