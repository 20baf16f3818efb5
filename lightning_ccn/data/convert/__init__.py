"""Converters from public click logs to datasets of page views."""
