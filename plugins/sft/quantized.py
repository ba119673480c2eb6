"""QLoRA (Dettmers et al. 2023): adapters on a model in four bits, merged into the full weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Artifact, Context


def load_quantized(artifact: Artifact, ctx: Context) -> Any:
    """The model in NF4 with double quantization, ready for adapters.

    Embeddings and norms stay as they are.
    """
    import torch

    try:
        # transformers would import it later, with a worse message.
        import bitsandbytes  # type: ignore[import-not-found] # noqa: F401
    except ImportError as error:
        raise StageError(
            f"{ctx.step}.qlora=true needs bitsandbytes: pip install 'llmstages[qlora]'"
        ) from error
    from peft import prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from llmstages.train.distributed import compute_device

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32,
    )
    model = AutoModelForCausalLM.from_pretrained(
        artifact.path,
        quantization_config=quantization,
        dtype=torch.float32,
        device_map={"": compute_device()},
    )
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def merge_adapters(trained: Any, full_model: Any, work: Path) -> Any:
    """The adapters of ``trained`` merged into ``full_model``, the same model before quantization.

    Args:
        work: folder for the adapters on their way from one model to the other.
    """
    from peft import PeftModel

    trained.save_pretrained(work / "merging")
    merged: Any = PeftModel.from_pretrained(full_model, work / "merging").merge_and_unload()
    # The trainer has set these to the tokenizer's, but in the config of the quantized model.
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(merged.config, name, getattr(trained.config, name))
        setattr(merged.generation_config, name, getattr(trained.generation_config, name))
    return merged
