"""`ccn data build`: from a raw log to a dataset folder."""
