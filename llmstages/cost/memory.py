"""How much memory a training takes, by purpose.

Counted are the tensors that PyTorch keeps for the backward pass, one by one, as in
Korthikanti et al. 2022 ("Reducing Activation Recomputation", section 4.1), for the modules of
transformers with sdpa attention: their norms consist of single operations that keep more than a
fused kernel would. Sharding follows Rajbhandari et al. 2020 (ZeRO).

Left out on purpose: the process itself (0.5 GB with torch and the Trainer of transformers imported,
and what a CUDA context takes), communication, and data. benchmarks/memory.py compares the estimate
with what training takes.
"""

from __future__ import annotations

from llmstages.cost.model import Model, Training


def training_memory(
    work: Training, processes: int = 1, zero: int = 0, cpu: bool = False
) -> dict[str, int]:
    """Bytes on each accelerator by purpose, and their highest sums.

    Not all tensors live at once: gradients grow while activations go (unless batches accumulate),
    and evaluation keeps one layer only. On the CPU this does not help. The malloc of glibc keeps
    freed blocks below 32 MB (mallopt(3), M_MMAP_THRESHOLD), and what one phase leaves does not fit
    the next, so there the purposes add up.

    Args:
        zero: stage of ZeRO over ``processes``. 1 shards optimizer state, 2 gradients as well, 3
            weights as well.

    Returns:
        Bytes by purpose; ``live``, the most that tensors take at one time; ``peak``, the most that
        the process takes for them.
    """
    model = work.model
    rows = work.rows_at_once(processes)
    tokens = rows * work.max_length
    is_ddp = processes > 1 and not zero
    weights = _bytes_of_weights(work)
    gradients = 4 * work.trained()
    buckets = 0
    if is_ddp:
        # DistributedDataParallel keeps a second copy of the gradients in its buckets.
        buckets = gradients
        gradients += buckets
    optimizer = 8 * work.trained()  # AdamW's two moments in float32
    if zero >= 1:
        optimizer //= processes
    if zero >= 2:
        gradients //= processes
    if zero >= 3:
        weights //= processes
    layers = model.layers * (2 if work.has_critic else 1)
    activations_per_token = layers * activation_bytes_per_layer(
        model, work.max_length, work.bf16, cpu
    ) + activation_bytes_of_head(model, work.bf16)
    activations = tokens * activations_per_token
    logits = tokens * 12 * model.vocab  # in float32: log-softmax, and two gradients of that size
    evaluation = work.eval_rows * work.max_length * _evaluation_bytes_per_token(model, work.bf16)

    # Gradients live through the forward pass only where batches accumulate.
    forward_gradients = buckets
    if work.batch_size > rows * processes:
        forward_gradients = gradients
    embedding_gradient = 0
    if not work.adapters:
        # The gradient of the embedding lives apart until it takes in that of a tied head.
        embedding_gradient = 4 * model.vocab * model.hidden
    phases = (
        forward_gradients + activations + logits,
        gradients + embedding_gradient,
        buckets + evaluation,
    )
    purposes = {
        "weights": weights,
        "gradients": gradients,
        "optimizer": optimizer,
        "activations": activations,
        "logits": logits,
        "evaluation": evaluation,
    }
    live = weights + optimizer + max(phases)
    peak = live
    if cpu:
        peak = sum(purposes.values())
    return {**purposes, "live": live, "peak": peak}


def _bytes_of_weights(work: Training) -> int:
    weights = 4 * work.model.parameters() + 4 * work.adapters
    if work.has_reference and not work.adapters:
        weights += 4 * work.model.parameters()  # with adapters, the model without them is it
    if work.has_critic:
        weights += 4 * work.model.parameters()
    if work.bf16:
        # The bfloat16 copies of autocast live until the backward pass has used them.
        weights += 2 * work.model.multiplied()
    return weights


def _evaluation_bytes_per_token(model: Model, bf16: bool) -> int:
    """Bytes of one token without gradients: at the head, or in a layer if that is more.

    At the head these are logits, their float32 copy if they are bfloat16, and log-softmax. Only
    one layer at a time holds anything.
    """
    head = (10 if bf16 else 8) * model.vocab
    layer = 12 * (model.intermediate + model.hidden)
    return max(head, layer)


def activation_bytes_per_layer(model: Model, length: int, bf16: bool, cpu: bool) -> int:
    """Bytes of one token that one layer keeps for the backward pass.

    llama and qwen2 in float32: of each norm its input, the normalized and the scaled copy; queries,
    keys and values (repeated to all heads), the result of attention and its mask (of packed
    documents, one row per token); gate, its SiLU, up, and product. Under bfloat16 autocast the
    residual stream and the norms stay float32, and each matrix keeps a bfloat16 copy of its input.
    """
    if model.architecture == "gpt2":
        return _gpt2_activation_bytes(model, length, bf16, cpu)
    hidden, attention, intermediate = model.hidden, model.attention, model.intermediate
    if bf16:
        return 26 * hidden + 8 * attention + 8 * intermediate + 2 * length + 4 * model.heads + 8
    return 24 * hidden + 16 * attention + 16 * intermediate + 4 * length + 4 * model.heads + 8


def _gpt2_activation_bytes(model: Model, length: int, bf16: bool, cpu: bool) -> int:
    """The same for gpt2.

    Two norms (input, result); queries, keys, values and the result of attention; the four
    operations of NewGELU and its product; two dropout masks.
    """
    if bf16:
        size = 2
        matrices = 12 * model.hidden + 8 * model.attention + 16 * model.intermediate
    else:
        size = 4
        matrices = 16 * model.hidden + 16 * model.attention + 20 * model.intermediate
    if cpu:
        dropout = 2 * model.hidden * size
        # With dropout the CPU has no fused attention: each head keeps its probabilities before and
        # after dropout, and the mask.
        probabilities = 3 * size * model.heads * length
    else:
        dropout = 2 * model.hidden
        probabilities = size * length + 4 * model.heads
    return matrices + dropout + probabilities + 16


def activation_bytes_of_head(model: Model, bf16: bool) -> int:
    """Bytes of one token kept outside the layers: the last norm, whose result the head takes."""
    norm = 4 if model.architecture == "gpt2" else 8
    head_input = 2 if bf16 else 4
    return model.hidden * (norm + head_input)
