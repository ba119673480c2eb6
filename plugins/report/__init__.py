"""One page on which every claim stands beside its number."""
