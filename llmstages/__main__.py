"""``python -m llmstages`` is the ``llmstages`` command."""

import sys

from llmstages.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
