#!/usr/bin/env bash
# The whole story on a laptop CPU, then a conversation with the result.
set -euo pipefail
recipe=${1:-story}
llmstages run recipe="$recipe"
llmstages report
llmstages tokens "Where was the baker born? 56+48=104"
echo "What is 123+456?" | llmstages chat
