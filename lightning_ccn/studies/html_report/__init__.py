"""The report of a comparison: one HTML file without scripts, fonts or requests."""

from lightning_ccn.studies.html_report.document import write_page

__all__ = ["write_page"]
