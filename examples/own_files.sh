#!/usr/bin/env bash
# Your own files through every stage. Formats are detected: WARC/HTML/txt/jsonl/parquet pages; Alpaca, ShareGPT, messages
# dialogues; HH or DPO preferences; GSM8K or question/answer problems. Overrides may follow the four files.
set -euo pipefail
pages=$1 dialogues=$2 preferences=$3 problems=$4
llmstages run recipe=real "pages.path=$pages" "dialogues.path=$dialogues" "preferences.path=$preferences" "problems.path=$problems" "${@:5}"
