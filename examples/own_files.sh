#!/usr/bin/env bash
# Your own files through every stage: own_files.sh PAGES DIALOGUES PREFERENCES PROBLEMS [OVERRIDE...]
# The formats are detected: WARC, HTML, txt, jsonl or parquet pages; Alpaca, ShareGPT or messages
# dialogues; HH or DPO preferences; GSM8K or question/answer problems.
set -euo pipefail
pages=$1 dialogues=$2 preferences=$3 problems=$4
llmstages run recipe=real \
  "pages.path=$pages" \
  "dialogues.path=$dialogues" \
  "preferences.path=$preferences" \
  "problems.path=$problems" \
  "${@:5}"
