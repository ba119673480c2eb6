#!/usr/bin/env bash
# Swap one stage and see what runs again. Give the recipe as first argument (default: smoke, a minute).
set -euo pipefail
recipe=${1:-smoke}
llmstages run recipe="$recipe"                              # the whole chain
llmstages plan recipe="$recipe" rl=rejection                # another RL variant: rl, evaluate and report are new, and why
llmstages run recipe="$recipe" rl=rejection
llmstages run recipe="$recipe" rl.learning_rate=1e-5        # one value: the same three steps
llmstages show rl
