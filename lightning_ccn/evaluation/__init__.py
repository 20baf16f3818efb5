"""What is measured: metrics, means over items, sums of scores, plots, heuristics, bounds of a synthetic world."""
