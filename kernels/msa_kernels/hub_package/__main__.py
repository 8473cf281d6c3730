"""``python -m msa_kernels.hub_package --out FOLDER``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from msa_kernels.hub_package import BACKENDS, NAME, VERSION, write_package


def main(argv: list[str] | None = None) -> int:
    """Write the package.

    Returns:
        0, or 2 where that cannot be done; the reason is on standard error.
    """
    parser = argparse.ArgumentParser(
        prog="python -m msa_kernels.hub_package",
        description="Write our kernels in the layout of the Hugging Face Hub, loadable by "
        f"kernels.get_local_kernel: one build each for {' and '.join(BACKENDS)}, of Python files "
        "that import torch, and Triton where it is found.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="where to write: a new or empty folder, or one that this wrote before",
    )
    parser.add_argument(
        "--name",
        default=NAME,
        help="of the kernel, in small letters, digits and dashes (%(default)s)",
    )
    parser.add_argument(
        "--version",
        type=int,
        default=VERSION,
        metavar="N",
        help="of its interface; 0 for one that may still change (%(default)s)",
    )
    options = parser.parse_args(argv)
    try:
        write_package(options.out, name=options.name, version=options.version)
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: load it with kernels.get_local_kernel(Path({str(options.out)!r}))")
    return 0


if __name__ == "__main__":
    sys.exit(main())
