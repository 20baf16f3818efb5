"""`ccn simulate`: what trained systems would earn in the world that made their log, as the paper's Tables 3 and 4."""
