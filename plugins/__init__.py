"""The built-in stages, one folder a slot, one file a variant: ``llmstages.plugins``."""
