"""The comparison as one HTML file that needs nothing else: no script, no font, no request."""

from lightning_ccn.studies.html_report.document import write_page

__all__ = ["write_page"]
