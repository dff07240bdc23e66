"""Methods of fine-tuning: which weights train, how they begin, what their batches look like.

LoRA and its relatives, (IA)3, soft prompts and bottleneck adapters on a frozen base, or the whole model. What
a method needs besides its configuration is here, too: AdaLoRA's moving ranks and its penalty, the two
learning rates of LoRA+, padded batches for soft prompts, and what lets a model with such a prompt answer.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import config
from persona.chat import IGNORED
from persona.errors import UserError

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

logger = logging.getLogger(__name__)

MethodName = Literal["qlora", "lora", "dora", "adalora", "full", "prefix", "prompt", "ia3", "adapters"]

VIRTUAL_TOKENS = 20
"""Length of a soft prompt or prefix."""
BOTTLENECK = 64
"""Dimensions of a bottleneck adapter, as in Houlsby et al. 2019."""
RANKS_STATE = "rank_allocator.safetensors"


@dataclass(frozen=True)
class Method:
    """What sets a method apart."""

    title: str
    lr_factor: float = 1.0
    """Its learning rate, in units of the model's own for LoRA."""
    four_bit: bool = True
    """Whether the base is in NF4 unless it is said otherwise."""
    low_rank: bool = False
    """Whether there are LoRA matrices A and B."""
    mergeable: bool = True
    """Whether it can be added to the weights of the base."""
    padded: bool = False
    """Whether its batches are padded: virtual tokens before each row leave no room for one long sequence."""


METHODS: dict[str, Method] = {
    "qlora": Method("QLoRA", low_rank=True),
    "lora": Method("LoRA", low_rank=True, four_bit=False),
    "dora": Method("DoRA", low_rank=True),
    "adalora": Method("AdaLoRA", low_rank=True),
    "full": Method("full fine-tuning", 0.1, four_bit=False, mergeable=False),
    "prefix": Method("prefix tuning", 20.0, mergeable=False, padded=True),
    "prompt": Method("prompt tuning", 10.0, mergeable=False, padded=True),
    "ia3": Method("(IA)3", 10.0),
    "adapters": Method("bottleneck adapters", mergeable=False),
}


def check(args: Any) -> None:
    """Refuse flags that do not go together.

    Raises:
        UserError: naming both, and what to take in their place.
    """
    method = METHODS[args.method]
    if args.four_bit and not method.four_bit:
        instead = "--method qlora is LoRA in NF4" if args.method == "lora" else "weights in NF4 do not train"
        raise UserError(f"--method {args.method} does not go with --four-bit True: {instead}")
    if args.four_bit is False and args.method == "qlora":
        raise UserError("--method qlora does not go with --four-bit False: --method lora is that")
    if args.use_rslora and args.method not in ("qlora", "lora", "dora"):
        raise UserError(f"--use-rslora scales LoRA matrices, of which --method {args.method} has none")
    if args.loraplus_ratio is not None and not method.low_rank:
        raise UserError(f"--loraplus-ratio is about LoRA's B, which --method {args.method} does not have")
    if args.low_memory and args.method in ("full", "prefix", "prompt"):
        raise UserError(f"--low-memory keeps off the GPU what --method {args.method} needs: the embeddings")
    if args.activation_checkpointing and args.method == "prefix":
        raise UserError(
            "--method prefix keeps its prefix in the cache, which --activation-checkpointing goes without"
        )


def adapter_config(args: Any, model: "PreTrainedModel", steps: int) -> "PeftConfig | None":
    """peft's configuration of the method for a run of `steps`; None where the whole model trains."""
    import peft

    common = {"task_type": "CAUSAL_LM"}
    lora = {"lora_alpha": args.lora_alpha, "lora_dropout": args.lora_dropout, **common}
    if args.method in ("qlora", "lora", "dora"):
        return peft.LoraConfig(
            r=args.lora_r,
            target_modules=_targets(model, config.LORA_TARGETS),
            use_dora=args.method == "dora",
            use_rslora=args.use_rslora,
            **lora,
        )
    if args.method == "adalora":
        return peft.AdaLoraConfig(
            init_r=args.lora_r * 3 // 2,
            target_r=args.lora_r,
            target_modules=_targets(model, config.LORA_TARGETS),
            total_step=steps,
            tinit=steps // 10,
            tfinal=steps // 5,
            deltaT=max(1, steps // 100),
            **lora,
        )
    if args.method == "prefix":
        return peft.PrefixTuningConfig(num_virtual_tokens=VIRTUAL_TOKENS, **common)
    if args.method == "prompt":
        return peft.PromptTuningConfig(
            num_virtual_tokens=VIRTUAL_TOKENS, prompt_tuning_init="SAMPLE_VOCAB", **common
        )
    if args.method == "ia3":
        targets = _targets(model, ("k_proj", "v_proj", "down_proj"))
        return peft.IA3Config(target_modules=targets, feedforward_modules=["down_proj"], **common)
    if args.method == "adapters":
        from persona.bottleneck import BottleneckConfig

        return BottleneckConfig(
            target_modules=_targets(model, ("o_proj", "down_proj")), width=BOTTLENECK, **common
        )
    return None


def _targets(model: "PreTrainedModel", names: Sequence[str]) -> list[str]:
    """The modules to change, once it is known that the model has them."""
    there = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    missing = [name for name in names if name not in there]
    if missing:
        raise UserError(
            f"{model.name_or_path} ({model.config.model_type}) has no {', '.join(missing)}, which this "
            "method changes: take --method prompt or full, or a model of the Llama, Mistral or Qwen family"
        )
    return list(names)


def begin(trainer, args: Any) -> None:
    """Put a new trainer's weights and optimiser into the state from which the method begins.

    Trainable weights in float32: SFTTrainer casts adapters to bf16, in which small updates round to nothing,
    and a resumed run differs. A prefix small: peft draws its keys and values from N(0, 1), which drowns
    what the model would say.
    """
    import torch

    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    if args.method == "prefix":
        with torch.no_grad():
            for parameter in trainer.model.prompt_encoder.parameters():
                parameter.mul_(0.1)
    if args.loraplus_ratio is not None:
        _use_loraplus(trainer, args.loraplus_ratio)


def collator(method: str, tokenizer: "PreTrainedTokenizerBase"):
    """What makes a batch of rows: one sequence without padding, or padded rows for soft prompts."""
    if METHODS[method].padded:
        from transformers import DataCollatorForSeq2Seq

        tokenizer.padding_side = "right"
        return DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED)
    from persona.attention import collate

    return collate


def trainer_class(method: str) -> type:
    """SFTTrainer; for AdaLoRA with the penalty that keeps A and B orthogonal, which TRL's own loss lacks."""
    from trl import SFTTrainer

    if method != "adalora":
        return SFTTrainer

    class AdaLoraTrainer(SFTTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            if return_outputs or not model.training:
                return loss
            weight = self.accelerator.unwrap_model(model).active_peft_config.orth_reg_weight
            return loss + weight * orthogonality(model) / self.current_gradient_accumulation_steps

    return AdaLoraTrainer


def orthogonality(model: "torch.nn.Module") -> "torch.Tensor":
    """Mean of |P^T P - I| and |Q Q^T - I| over AdaLoRA's matrices (Zhang et al. 2023, equation 4)."""
    import torch

    found = []
    for name, p in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            gram = p @ p.T if "lora_A" in name else p.T @ p
            found.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=p.device)))
    return torch.stack(found).mean()


def _use_loraplus(trainer, ratio: float) -> None:
    """Give a trainer the optimiser of LoRA+ (Hayou et al. 2024): B learns `ratio` times as fast as A."""
    from peft.optimizers import create_loraplus_optimizer

    kind, settings = trainer.get_optimizer_cls_and_kwargs(trainer.args, trainer.model)
    settings |= {"loraplus_lr_ratio": ratio, "loraplus_weight_decay": trainer.args.weight_decay}
    trainer.optimizer = create_loraplus_optimizer(trainer.model, kind, **settings)


def callbacks(method: str, resume: Path | None) -> "list[TrainerCallback]":
    """What has to happen during training: AdaLoRA moves its ranks. These go before the checkpoint's seal."""
    if method != "adalora":
        return []
    from transformers import TrainerCallback

    class MoveRanks(TrainerCallback):
        """Update importances and masks after each step, and keep them in the checkpoints.

        The allocator is called itself, not by way of `update_and_allocate`: that one notes the final ranks in
        the configuration, from where on peft saves matrices of another size than a resumed run has.
        """

        def on_train_begin(self, args, state, control, model, **kwargs):
            if resume:
                _restore_ranks(model.base_model.rankallocator, resume / RANKS_STATE, model.device)

        def on_optimizer_step(self, args, state, control, model, **kwargs):
            model.base_model.rankallocator.update_and_allocate(model.base_model.model, state.global_step + 1)

        def on_save(self, args, state, control, model, **kwargs):
            if not state.is_world_process_zero:
                return
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            _save_ranks(model.base_model.rankallocator, folder / RANKS_STATE)

    return [MoveRanks()]


_AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")


def _save_ranks(allocator, path: Path) -> None:
    from safetensors.torch import save_file

    tensors = {f"{kind}/{name}": t for kind in _AVERAGES for name, t in getattr(allocator, kind).items()}
    save_file({name: t.detach().contiguous() for name, t in tensors.items()}, path)


def _restore_ranks(allocator, path: Path, device: "torch.device") -> None:
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"{path} is missing: AdaLoRA cannot go on from this checkpoint; start with --force")
    for key, tensor in load_file(path, device=str(device)).items():
        kind, _, name = key.partition("/")
        getattr(allocator, kind)[name] = tensor


def has_virtual_tokens(model: "PreTrainedModel") -> bool:
    """Whether an adapter puts virtual tokens before the text, which stand in the cache as no text does."""
    adapter = getattr(model, "active_peft_config", None)
    return adapter is not None and adapter.is_prompt_learning


def ready_soft_prompt(model: "PeftModel") -> "PeftModel":
    """A model with a soft prompt or prefix that answers as one without it is asked to.

    Logits of the virtual tokens are left out, so that they lie under the input's tokens. And of prompts that
    are padded on the left each is answered by itself: peft counts positions from the padding's begin on.
    """
    stated = model.active_peft_config
    virtual = stated.num_virtual_tokens if stated.peft_type == "PROMPT_TUNING" else 0
    generate = model.generate

    def without_virtual(module, inputs, output):
        if virtual:
            output.logits = output.logits[:, virtual:]
        return output

    def one_by_one(input_ids=None, attention_mask=None, **how):
        if attention_mask is None or bool(attention_mask.all()):
            return generate(input_ids=input_ids, attention_mask=attention_mask, **how)
        rows = [
            generate(input_ids=ids[None, mask == 1], attention_mask=mask[None, mask == 1], **how)[0]
            for ids, mask in zip(input_ids, attention_mask, strict=True)
        ]
        pad, width = how["generation_config"].pad_token_id, input_ids.shape[1]
        answers = [row[int(mask.sum()) :] for row, mask in zip(rows, attention_mask, strict=True)]
        longest = max(map(len, answers))
        filled = input_ids.new_full((len(rows), width + longest), pad)
        for k, answer in enumerate(answers):
            filled[k, :width], filled[k, width : width + len(answer)] = input_ids[k], answer
        return filled

    model.register_forward_hook(without_virtual)
    model.generate = one_by_one
    return model
