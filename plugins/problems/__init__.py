"""Problems with checkable answers from local files; the synthetic ones are in plugins/world."""
