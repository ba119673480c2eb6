"""The built-in stages: one folder a slot, one file a variant. Installed as ``llmstages.plugins``."""
