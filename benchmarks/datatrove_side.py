"""datatrove's half of benchmarks/corpus.py, for a virtual environment of its own.

Reads one JSON object a line from standard input ({"do": "run"|"decide", ...}) and answers with
one, so that imports and spaCy's start are paid once, outside the clock.
"""

import json
import shutil
import sys
import time
from pathlib import Path

ANSWERS = sys.stdout
sys.stdout = sys.stderr

import os

os.environ["DATATROVE_COLORIZE_LOGS"] = "0"

from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.logging import logger
from datatrove.utils.text import split_into_words

logger.remove()


def filters(folder=None):
    """FineWeb's four text filters, with a writer for what each drops where a folder is given."""

    def out(name):
        return JsonlWriter(f"{folder}/removed/{name}", compression=None) if folder else None

    return {
        "gopher_repetition": GopherRepetitionFilter(exclusion_writer=out("1")),
        "gopher_quality": GopherQualityFilter(exclusion_writer=out("2")),
        "c4": C4QualityFilter(filter_no_terminal_punct=False, exclusion_writer=out("3")),
        "fineweb_quality": FineWebQualityFilter(exclusion_writer=out("4")),
    }


def run(source, folder, workers, minhash):
    """Seconds of the pipeline over the files in ``source``, one task a file.

    minhash: sign none, the kept or all documents.
    """
    shutil.rmtree(folder, ignore_errors=True)
    sign = MinhashDedupSignature(
        f"{folder}/signatures", MinhashConfig(hash_config=HashConfig(hash_fc="sha1"))
    )
    steps = [
        JsonlReader(source),
        *filters(folder).values(),
        JsonlWriter(f"{folder}/kept", compression=None),
    ]
    pipelines = {
        "none": [steps],
        "kept": [[*steps, sign]],
        "all": [[JsonlReader(source), sign], steps],
    }[minhash]  # signing hands no document on
    start = time.perf_counter()
    for number, pipeline in enumerate(pipelines):
        LocalPipelineExecutor(
            pipeline,
            tasks=workers,
            workers=workers,
            logging_dir=f"{folder}/logs{number}",
            start_method="fork",
        ).run()
    seconds = time.perf_counter() - start
    kept = sum(sum(1 for _ in open(file)) for file in Path(folder, "kept").glob("*.jsonl"))
    return {"seconds": seconds, "kept": kept}


def decide(source):
    """id -> [rule that drops it or null, text that stays or null], document by document."""
    decisions = {}
    for file in sorted(Path(source).glob("*.jsonl")):
        for line in open(file):
            row = json.loads(line)
            document, rule = Document(text=row["text"], id=row["id"]), None
            for name, each in filters().items():
                result = each.filter(document)
                if result is not True:
                    rule = f"{name}.{result[1].removeprefix('gopher_')}"
                    break
            decisions[row["id"]] = [rule, None if rule else document.text]
    return decisions


split_into_words("Warm up. It takes spaCy some seconds to start.")
for line in sys.stdin:
    asked = json.loads(line)
    answer = run(**asked["with"]) if asked["do"] == "run" else decide(**asked["with"])
    print(json.dumps(answer), file=ANSWERS, flush=True)
