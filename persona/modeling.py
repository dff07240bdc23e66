"""Base models and adapters.

Which device and dtype, NF4 loading, what fits what.
"""

import ctypes
import json
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import config
from persona.chat import check_tokenizer, end_of_turn
from persona.errors import UserError
from persona.footprint import parameter_counts

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Device:
    """Where and in which number format the model computes, and why."""

    type: str
    dtype: "torch.dtype"
    reason: str

    def __str__(self) -> str:
        return f"{self.type}, {str(self.dtype).removeprefix('torch.')} ({self.reason})"


def pick_device() -> Device:
    """CUDA where it is there, else the CPU; bf16 where the hardware computes in it, else float32.

    A CPU without bf16 arithmetic emulates it some hundred times slower than float32
    (measured: 1.2 against 127 GFLOP/s). PERSONA_DTYPE overrides the number format.

    Raises:
        UserError: PERSONA_DTYPE is neither float32 nor bfloat16.
    """
    import torch

    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        keep_freed_memory()
    if wanted := os.environ.get("PERSONA_DTYPE"):
        if wanted not in ("float32", "bfloat16"):
            raise UserError(f"PERSONA_DTYPE must be float32 or bfloat16, not {wanted!r}")
        return Device("cuda" if on_gpu else "cpu", getattr(torch, wanted), "by PERSONA_DTYPE")
    if on_gpu:
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Device("cuda", torch.bfloat16, torch.cuda.get_device_name())
        return Device("cuda", torch.float16, f"{torch.cuda.get_device_name()} has no bf16")
    if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        return Device("cpu", torch.bfloat16, "no CUDA device; this CPU computes in bf16")
    return Device("cpu", torch.float32, "no CUDA device; this CPU has no bf16 arithmetic")


def in_float32(device: Device) -> Device:
    """The same device, with weights in float32: for a model whose own weights train."""
    import torch

    return replace(device, dtype=torch.float32)


def keep_freed_memory() -> None:
    """Tell glibc to keep what is freed.

    PyTorch's CPU tensors come and go, and paging them in anew takes a third of a step.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-4, 0)  # M_MMAP_MAX: large blocks from the heap, too
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError):
        logger.info("no glibc: memory is paged in anew for every step")


PADDING = ("<|endoftext|>", "<|finetune_right_pad_id|>", "<pad>", "<|end_of_text|>", "<unk>", "[UNK]")
"""Tokens that stand in for padding where a model has none, best first."""


def load_tokenizer(entry: config.ModelEntry) -> "PreTrainedTokenizerBase":
    """The tokenizer of a base model, checked for what training needs.

    Padding is set where the model states none, the end of turn where it states the end of a whole text.
    """
    from transformers import AutoTokenizer

    tokenizer = _from(entry, AutoTokenizer)
    closing = end_of_turn(tokenizer) if tokenizer.chat_template else None
    if closing and closing != tokenizer.eos_token:
        logger.info("%s: turns end with %s, not with %s", entry.source, closing, tokenizer.eos_token)
        tokenizer.eos_token = closing
    if tokenizer.pad_token is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        known = tokenizer.get_vocab()
        spare = [t for t in PADDING if t in known and t != tokenizer.eos_token]
        if not spare:
            raise UserError(
                f"{entry.source}: padding equals the end of turn and no spare token is there; "
                "set pad_token in tokenizer_config.json"
            )
        tokenizer.pad_token = spare[0]
    check_tokenizer(tokenizer, entry.source)
    return tokenizer


DEQUANTISED_ON_CPU = 2_000_000_000
"""Parameters up to which a CPU keeps the NF4 weights de-quantised."""


def load_base(entry: config.ModelEntry, device: Device, four_bit: bool = True) -> "PreTrainedModel":
    """The base model, in NF4 with double quantisation unless `four_bit` is off.

    On a CPU the NF4 weights of all but very large models are de-quantised once:
    the numbers are the same, the work per step is not.

    Raises:
        UserError: no such model, no network, broken files.
    """
    import torch
    from transformers import AutoModelForCausalLM

    options: dict = {"dtype": device.dtype, "attn_implementation": "sdpa"}
    if four_bit:
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=device.dtype,
            bnb_4bit_quant_storage=device.dtype if device.type == "cuda" else None,
        )
    if device.type == "cuda":
        options["device_map"] = {"": torch.cuda.current_device()}
    model = _from(entry, AutoModelForCausalLM, **options)
    if four_bit and device.type == "cpu":
        import bitsandbytes

        for module in model.modules():
            if isinstance(module, bitsandbytes.nn.Linear4bit):
                module.support_avx512bf16_for_cpu = (
                    False  # it would repack the weight in eval() and lose gradients after
                )
        if parameter_counts(model)[1] <= DEQUANTISED_ON_CPU:
            _dequantise(model, device)
    return model


def _dequantise(model: "PreTrainedModel", device: Device) -> None:
    """Replace each Linear4bit by the Linear that it stands for, in place."""
    import bitsandbytes
    import torch

    for name, module in list(model.named_modules()):
        if not isinstance(module, bitsandbytes.nn.Linear4bit):
            continue
        weight = bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state).to(
            device.dtype
        )
        linear = torch.nn.Linear(
            weight.shape[1], weight.shape[0], bias=module.bias is not None, device="meta"
        )
        linear.weight = torch.nn.Parameter(weight, requires_grad=False)
        linear.bias = module.bias
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, linear)
    for flag in ("is_quantized", "is_loaded_in_4bit", "quantization_method", "hf_quantizer"):
        if hasattr(model, flag):
            setattr(model, flag, None if flag in ("quantization_method", "hf_quantizer") else False)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def _from(entry: config.ModelEntry, auto: type, **options):
    """`auto.from_pretrained` with its many errors as one line."""
    from safetensors import SafetensorError

    try:
        return auto.from_pretrained(entry.source, revision=entry.revision, **options)
    except (OSError, ValueError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno in (28, 122):
            raise
        if Path(entry.source).is_dir():
            raise UserError(f"{entry.source} is no model that can be loaded: {_first_line(error)}") from error
        raise UserError(
            f"cannot load {entry.source} from the hub: {_first_line(error)}; "
            "check the name and the network (a gated model needs `hf auth login`), "
            "or take --model tiny, which needs neither"
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200]


def weights_of(folder: Path) -> Path:
    """The file with what was trained: of an adapter, or of a whole model that stands in its place."""
    whole = folder / "model.safetensors"
    return whole if whole.is_file() else folder / "adapter_model.safetensors"


def attach_adapter(
    model: "PreTrainedModel | PeftModel", path: Path, name: str = "default"
) -> "PeftModel | PreTrainedModel":
    """Put a trained adapter on its base; of a run that trained all weights, load those in its place.

    A model that has an adapter already gets one more, under a `name` of its own, and uses that.

    Raises:
        UserError: no adapter there, or one that does not fit this base (named).
    """
    from peft import PeftModel
    from safetensors import SafetensorError

    from persona import bottleneck  # noqa: F401 - makes its method known to peft
    from persona.methods import has_virtual_tokens, ready_soft_prompt

    if weights_of(path).name == "model.safetensors":
        logger.warning("%s is a whole model, not quantised: it stands in for %s", path, model.name_or_path)
        device = Device(model.device.type, _computes_in(model), "as the base")
        return load_base(config.ModelEntry(str(path)), device, four_bit=False).eval()
    if not (path / "adapter_config.json").is_file():
        raise UserError(f"no adapter at {path}: make one with python fine_tune.py")
    try:
        if isinstance(model, PeftModel):
            model.load_adapter(str(path), adapter_name=name)
            model.set_adapter(name)
            tuned = model
        else:
            tuned = PeftModel.from_pretrained(model, str(path), adapter_name=name)
    except (RuntimeError, ValueError, KeyError, OSError, SafetensorError) as error:
        base = _stated_base(path)
        lines = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
        detail = lines[0][:160] if lines else _first_line(error)
        raise UserError(
            f"the adapter at {path} does not fit {model.name_or_path} (it was trained on {base}): {detail}"
        ) from error
    if has_virtual_tokens(tuned):
        ready_soft_prompt(tuned)
    return tuned.eval()


def _computes_in(model: "PreTrainedModel") -> "torch.dtype":
    return model.get_input_embeddings().weight.dtype


def _stated_base(path: Path) -> str:
    try:
        return json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))[
            "base_model_name_or_path"
        ]
    except (OSError, KeyError, json.JSONDecodeError):
        return "an unknown base"


def speed_up_dropout(model: "torch.nn.Module") -> None:
    """Replace nn.Dropout by one that draws 16 random bits an element, four elements a draw.

    For training on a CPU: PyTorch's dropout there draws each element by itself and costs a small model a
    fifth of its step. The rate is exact to 1/65,536, and the draws come from PyTorch's own generator, so
    that a resumed run goes on with the same masks.
    """
    import torch

    class FastDropout(torch.nn.Dropout):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not self.training or self.p == 0:
                return x
            n = x.numel()
            bits = torch.randint(-(2**63), 2**63 - 1, ((n + 3) // 4,)).view(torch.int16)[:n].view(x.shape)
            kept = bits >= round(self.p * 65536) - 32768
            return x * (kept * (1 / (1 - self.p))).to(x.dtype)

    for module in model.modules():
        if type(module) is torch.nn.Dropout:
            module.__class__ = FastDropout
