"""`ccn data check`."""
