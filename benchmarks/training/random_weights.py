"""A large model's architecture with random weights in NF4, made layer by layer on the device itself.

For measuring speed and memory where the weights cannot be had: what a step costs does not depend on them.
The whole model never exists in 16 bits anywhere: each matrix is drawn, quantised and dropped before the next.
"""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import config
from persona import modeling
from persona.errors import UserError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

QWEN2_5_7B = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "pad_token_id": 151643,
    "dtype": "bfloat16",
}
"""The published config.json of Qwen2.5-7B-Instruct, as far as the architecture goes."""
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
FIRST_SPECIAL = 151643


def write_folder(
    folder: Path, tokenizer: Path | None, layers: int | None = None, hidden: int | None = None
) -> Path:
    """A model folder with config and tokenizer and without weights.

    `tokenizer` is a folder of Qwen2.5's own files (tokenizer.json), or of its vocab.json, merges.txt and
    chat_template.jinja; None takes it from the hub. `layers` and `hidden` make it smaller, to try it out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = dict(QWEN2_5_7B)
    if layers:
        settings["num_hidden_layers"] = layers
    if hidden:
        settings |= {"hidden_size": hidden, "intermediate_size": 4 * hidden}
        settings |= {"num_attention_heads": hidden // 32, "num_key_value_heads": hidden // 64}
    (folder / "config.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    if tokenizer is None:
        modeling.load_tokenizer(config.MODELS["qwen2.5-7b"]).save_pretrained(folder)
        return folder
    if (tokenizer / "tokenizer.json").is_file():
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            if (tokenizer / name).is_file():
                shutil.copy(tokenizer / name, folder)
        return folder
    _tokenizer_of_vocabulary(tokenizer).save_pretrained(folder)
    return folder


def _tokenizer_of_vocabulary(folder: Path):
    from transformers import Qwen2Tokenizer

    for name in ("vocab.json", "merges.txt", "chat_template.jinja"):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing: --tokenizer names a folder of Qwen2.5's tokenizer")
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    vocab |= {token: FIRST_SPECIAL + i for i, token in enumerate(SPECIAL)}
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    return Qwen2Tokenizer(
        vocab=vocab,
        merges=[tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")],
        unk_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=(folder / "chat_template.jinja").read_text(encoding="utf-8"),
        model_max_length=32768,
    )


def build(folder: Path, device: str, dtype: "torch.dtype", seed: int = 0) -> "PreTrainedModel":
    """The model of `folder`/config.json on `device`: linear layers but the head in NF4 with double
    quantisation, the rest in `dtype`, weights from N(0, 0.02)."""
    import bitsandbytes
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.integrations import replace_with_bnb_linear

    quantised = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype if device == "cuda" else None,
    )
    settings = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(settings, dtype=dtype, attn_implementation="sdpa")
        model = replace_with_bnb_linear(
            model, modules_to_not_convert=["lm_head"], quantization_config=quantised
        )
    draw = torch.Generator(device).manual_seed(seed)

    def normal(shape: torch.Size) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=device).normal_(0, 0.02, generator=draw)

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            if device == "cpu":
                module.support_avx512bf16_for_cpu = False  # see persona.modeling.load_base
            shape = (module.out_features, module.in_features)
            weight = bitsandbytes.nn.Params4bit(
                normal(torch.Size(shape)),
                requires_grad=False,
                quant_type="nf4",
                compress_statistics=True,
                quant_storage=module.quant_storage,
                module=module,
            )
            module.weight = weight.to(device)
        for name, p in list(module.named_parameters(recurse=False)):
            if p.is_meta:
                ones = type(module).__name__.endswith("RMSNorm")
                value = torch.ones(p.shape, dtype=dtype, device=device) if ones else normal(p.shape)
                setattr(module, name, torch.nn.Parameter(value, requires_grad=False))
    # rotary frequencies are computed, not drawn
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config).to(device)
    model.is_loaded_in_4bit = True  # peft and TRL ask
    model.name_or_path = str(folder)
    return model
