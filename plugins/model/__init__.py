"""Models that somebody else made, where a chain begins."""
