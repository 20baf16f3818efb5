"""`ccn data check`: validates dataset folders."""
