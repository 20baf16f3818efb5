"""`ccn simulate`: clicks and orders that trained systems would get in their synthetic world (Tables 3 and 4)."""
