"""QLoRA (Dettmers et al. 2023): adapters on a model whose weights lie in four bits, merged into the full weights at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context


def load(artifact: Artifact, ctx: Context) -> Any:
    """The model in NF4 with double quantisation, ready for adapters; embeddings and norms stay as they are."""
    import torch

    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise StageError(
            f"{ctx.step}.qlora=true needs bitsandbytes: pip install 'llmstages[qlora]'"
        ) from error
    from peft import prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from llmstages.train.trainer import compute_device

    gpu = torch.cuda.is_available()
    how = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if gpu else torch.float32,
    )
    model = AutoModelForCausalLM.from_pretrained(
        artifact.path,
        quantization_config=how,
        dtype=torch.float32,
        device_map={"": compute_device()},
    )
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def merged(trained: Any, full: Any, work: Path) -> Any:
    """The adapters of ``trained`` in the weights of ``full``, the same model unquantised."""
    from peft import PeftModel

    trained.save_pretrained(work / "merging")
    made = PeftModel.from_pretrained(full, work / "merging").merge_and_unload()
    for name in (
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
    ):  # the trainer has set them to the tokenizer's
        for told in ("config", "generation_config"):
            setattr(getattr(made, told), name, getattr(getattr(trained, told), name))
    return made
