"""`ccn compare`: systems x seeds on one dataset, as the paper's Table 2."""
