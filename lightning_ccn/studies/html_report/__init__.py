"""Reports of a comparison and of a dataset folder: one HTML file without scripts, fonts or requests each."""

from lightning_ccn.studies.html_report.dataset_page import write_dataset_page
from lightning_ccn.studies.html_report.document import write_page

__all__ = ["write_dataset_page", "write_page"]
