"""Many runs: comparisons, their HTML report, simulated promotions."""
