"""A local HTTP server over the store: who may ask, which models are loaded, the OpenAI API."""
