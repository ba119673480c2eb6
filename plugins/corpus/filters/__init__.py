"""The filters of the corpus, one class in one file; ``llmstages.plugin`` has their contract."""
