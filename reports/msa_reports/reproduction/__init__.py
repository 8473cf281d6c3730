"""The document that ``msa-bench reproduce`` leaves: claims, figures beside figures, plots.

One rendering function a section, in a table of :mod:`msa_reports.reproduction.document`; what it
reads is measured under the same name by ``msa_suites.reproduction``.
"""

from msa_reports.reproduction.document import write_reproduction

__all__ = ["write_reproduction"]
