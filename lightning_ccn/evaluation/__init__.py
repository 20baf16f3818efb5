"""What is measured: metrics, means over items, sums of scores, plots, bounds of a synthetic world."""
