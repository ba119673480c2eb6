"""The studio: a local page over the store, to watch runs, talk to models and look inside them.

Each view is one module here (``routes(studio)``, JSON) and one in ``static/views`` (what is
shown). Plain ES modules, no build step, nothing from the network.
"""
