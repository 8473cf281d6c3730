"""``python -m msa_suites`` is ``msa-bench``."""

import sys

from msa_suites.cli import main

if __name__ == "__main__":
    sys.exit(main())
