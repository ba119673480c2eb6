"""A package, so that test files of several slots may share a name."""
