"""Public click logs -> page views."""
