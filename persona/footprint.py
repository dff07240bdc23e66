"""What a model takes: parameters, memory estimated and measured, and how to keep a part off the GPU."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from persona.modeling import Device


def parameter_counts(model: "torch.nn.Module") -> tuple[int, int]:
    """(trainable, all) parameters; an NF4 weight counts its real entries, not its packed bytes."""
    trainable = total = 0
    for p in model.parameters():
        state = getattr(p, "quant_state", None)
        n = state.shape.numel() if state is not None else p.numel()
        total += n
        trainable += n if p.requires_grad else 0
    return trainable, total


def estimated_memory(model: "torch.nn.Module", tokens: int, checkpointing: bool) -> dict[str, float]:
    """GiB before training starts.

    Weights as stored, adapter with gradients and two Adam moments, activations for `tokens` a step.
    Activations per token and layer, in units of hidden size: about 34 bytes-equivalents kept without
    activation checkpointing (Korthikanti et al. 2022, without the attention matrix), 2 with it, plus one
    layer at full size.
    """
    gib = 2.0**30
    stored = sum(p.numel() * p.element_size() for p in model.parameters())
    trainable, _ = parameter_counts(model)
    cfg = model.config
    width = max(
        (p.element_size() for p in model.parameters() if p.is_floating_point() and not p.requires_grad),
        default=4,
    )
    layer = 17 * width * cfg.hidden_size * tokens
    kept = (
        2 * width / 2 * cfg.hidden_size * tokens * cfg.num_hidden_layers + layer
        if checkpointing
        else layer * cfg.num_hidden_layers
    )
    return {
        "weights": stored / gib,
        "gradients and optimizer": 12 * trainable / gib,
        "activations": kept / gib,
    }


def size_table(model: "torch.nn.Module", tokens: int, checkpointing: bool) -> str:
    """Lines with the true parameter counts and the estimated memory for `tokens` a step."""
    trainable, total = parameter_counts(model)
    memory = estimated_memory(model, tokens, checkpointing)
    memory["together"] = sum(memory.values())
    lines = {"trainable parameters": f"{trainable:,}", "all parameters": f"{total:,}"}
    lines |= {"share": f"{trainable / total:.2%}"}
    lines |= {f"estimated memory, {k}": f"{gib:.2f} GiB" for k, gib in memory.items()}
    return "\n" + "\n".join(f"{k:<46}{v:>14}" for k, v in lines.items()) + "\n"


def peak_gib(device: "Device") -> float:
    """Most memory so far: reserved on the GPU, or resident in this process, libraries included."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_reserved() / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def keep_embeddings_on_cpu(model: "PreTrainedModel") -> "PreTrainedModel":
    """Move the input embeddings (1.01 GiB of a 7B) to the CPU's memory: only the rows of a batch travel.

    They are frozen, and nothing is learned below them. Not a parameter any more, the table stays where it is
    when a trainer moves the model.
    """
    import torch

    class CpuEmbedding(torch.nn.Module):
        def __init__(self, table: torch.nn.Embedding):
            super().__init__()
            self.device = table.weight.device
            self.kept = (table.weight.detach().cpu(),)  # in a tuple, so that it is not registered

        @property
        def weight(self) -> torch.Tensor:
            return self.kept[0]

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.embedding(ids.cpu(), self.weight).to(self.device)

    model.set_input_embeddings(CpuEmbedding(model.get_input_embeddings()))
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return model
