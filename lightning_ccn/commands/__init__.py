"""The commands of `ccn` that neither train nor submit."""
