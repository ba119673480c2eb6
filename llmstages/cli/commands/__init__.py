"""One file a command; each is imported only when it is used, so that ``--help`` stays quick."""
