"""Search indexes: the components of the group ``llmstages.indexes``."""
