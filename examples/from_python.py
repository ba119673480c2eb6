"""Steps and runs from Python, without Hydra: a tokenizer and a tiny model on text files."""

import sys
import tempfile
from pathlib import Path

from llmstages import run, step

folder = Path(tempfile.mkdtemp())
(folder / "tale.txt").write_text(
    "Once there was a small fox who lived near the river. The fox found a bell. " * 40
)

pages = step("pages", "pages.files", {"path": str(folder / "*.txt")})
corpus = step("corpus", "corpus.web", {"filters": {}}, documents=pages)
tokenizer = step("tokenizer", "tokenizer.bpe", {"vocab_size": 400}, corpus=corpus)
model = step(
    "pretrain",
    "pretrain.causal_lm",
    {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "epochs": 4.0,
    },
    corpus=[corpus],
    tokenizer=tokenizer,
)

store = sys.argv[1] if len(sys.argv) > 1 else "store"
artifacts = run([pages, corpus, tokenizer, model], store)
print("model in", artifacts["pretrain"].path)
