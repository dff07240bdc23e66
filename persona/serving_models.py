"""The models that a server answers as: one base, any number of LoRA adapters on it, one model id each.

Rows of different adapters go through one forward pass (peft's mixed batches); adapters that cannot be mixed
(DoRA) take a pass each. A run that trained all weights is a model of its own beside the base: it takes its
own memory and a pass each, and keeps its keys and values in the same cache.
"""

import json
import logging
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import config
from persona import card as cards
from persona import modeling
from persona.chat import context_length
from persona.errors import UserError
from persona.generation import stop_ids

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from persona.serving_cache import SlotCache

logger = logging.getLogger(__name__)

BASE = "__base__"
"""peft's name for rows without an adapter."""
MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,95}")


@dataclass(frozen=True)
class Served:
    """A model id and what stands behind it."""

    id: str
    adapter: str = BASE
    """Name of the adapter inside the model, or of the whole model beside it."""
    system_prompt: str | None = None
    """Put first where a conversation brings no system message."""


@dataclass(frozen=True)
class AdapterSource:
    """An adapter to serve, or a whole model in its place: its model id and its folder."""

    id: str
    path: Path
    rank: int = 0
    mixable: bool = True
    whole: bool = False


def adapter_sources(given: Sequence[str]) -> list[AdapterSource]:
    """Read `NAME=PATH` pairs.

    Raises:
        UserError: no such pair, a name twice, a folder that holds neither a LoRA adapter nor a model.
    """
    sources: list[AdapterSource] = []
    for pair in given:
        name, equals, path = pair.partition("=")
        if not equals or not MODEL_ID.fullmatch(name):
            raise UserError(
                f"--adapters {pair!r}: give NAME=FOLDER, such as sherlock=result/sherlock-tiny/adapter"
            )
        if name in {source.id for source in sources}:
            raise UserError(f"--adapters names {name!r} twice")
        sources.append(_source(name, Path(path)))
    return sources


def _source(name: str, path: Path) -> AdapterSource:
    if modeling.weights_of(path).name == "model.safetensors":
        return AdapterSource(name, path, whole=True)
    stated = path / "adapter_config.json"
    if not stated.is_file():
        raise UserError(f"no adapter at {path} for {name!r}: make one with python fine_tune.py")
    try:
        facts = json.loads(stated.read_text(encoding="utf-8"))
        kind, rank = facts["peft_type"], int(facts.get("r", 0))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{stated}: not an adapter's configuration ({error})") from error
    if kind != "LORA":
        raise UserError(
            f"{path}: a {kind} adapter; the server takes LoRA adapters and whole models, test.py others, too"
        )
    return AdapterSource(name, path, rank, mixable=not facts.get("use_dora"))


def served_models(base_id: str, sources: Sequence[AdapterSource]) -> list[Served]:
    """Ids in the order of /v1/models: adapters first, the base last.

    An id that names a persona has its system prompt.

    Raises:
        UserError: an adapter has the base's name.
    """
    if base_id in {source.id for source in sources}:
        raise UserError(f"--adapters: {base_id!r} is the base model's own id, give the adapter another name")
    return [
        *(Served(s.id, f"adapter{i}", _system_prompt(s.id)) for i, s in enumerate(sources)),
        Served(base_id),
    ]


def _system_prompt(name: str) -> str | None:
    if not (config.PERSONAS / name / "persona.toml").is_file():
        return None
    return cards.load_card(name).system_prompt


@dataclass
class ModelBank:
    """A loaded base with its adapters."""

    model: "PreTrainedModel | PeftModel"
    tokenizer: "PreTrainedTokenizerBase"
    served: dict[str, Served]
    context: int
    """Tokens of prompt and answer together."""
    mixable: bool = True
    wholes: "dict[str, PreTrainedModel]" = field(default_factory=dict)
    """Whole models that stand in the base's place, as `Served.adapter` names them."""
    _names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stop_ids = frozenset(stop_ids(self.model, self.tokenizer))
        self.never_said: list[list[int]] = self.model.generation_config.bad_words_ids or []
        self.inner: PreTrainedModel = self.model
        if len(self.served) > 1 + len(self.wholes):
            from peft.tuners.lora import LoraLayer
            from peft.utils.other import AuxiliaryTrainingWrapper

            self.inner = self.model.base_model.model
            for module in self.model.modules():
                if self.mixable and isinstance(module, (LoraLayer, AuxiliaryTrainingWrapper)):
                    module.register_forward_pre_hook(self._name_rows, with_kwargs=True)

    def _name_rows(self, module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """What peft itself does with `adapter_names`, without hooks that come and go at every step."""
        return args, {**kwargs, "adapter_names": self._names}

    @property
    def layers(self) -> int:
        return self.inner.config.num_hidden_layers

    def groups(self, adapters: list[str]) -> list[list[int]]:
        """Rows that can share a forward pass, by index."""
        rows: dict[str, list[int]] = defaultdict(list)
        for row, adapter in enumerate(adapters):
            alone = adapter in self.wholes or not self.mixable
            rows[adapter if alone else BASE].append(row)
        return list(rows.values())

    def forward(
        self,
        input_ids: "torch.Tensor",
        position_ids: "torch.Tensor",
        mask: "torch.Tensor",
        cache: "SlotCache",
        adapters: list[str],
    ) -> "torch.Tensor":
        """Logits of each row's last token, (rows, vocabulary), float32.

        input_ids and position_ids (rows, tokens), mask (rows, 1, tokens, positions), True where a token sees.
        """
        model = self.wholes.get(adapters[0], self.inner)
        self._names = adapters
        if not self.mixable and model is self.inner:
            self._activate(adapters[0])
        return (
            model(
                input_ids=input_ids,
                position_ids=position_ids,
                attention_mask=mask,
                past_key_values=cache.past,
                use_cache=True,
                logits_to_keep=1,
            )
            .logits[:, -1]
            .float()
        )

    def _activate(self, adapter: str) -> None:
        if adapter == BASE:
            self.model.base_model.disable_adapter_layers()
        else:
            self.model.base_model.enable_adapter_layers()
            self.model.set_adapter(adapter, inference_mode=True)


def load_bank(
    entry: config.ModelEntry, sources: Sequence[AdapterSource], four_bit: bool = True, context: int = 4096
) -> ModelBank:
    """Load the base once and every adapter onto it, whole models beside it.

    Raises:
        UserError: no such base, what does not fit it, an architecture without plain attention.
    """
    served = served_models(entry.name, sources)
    device = modeling.pick_device()
    logger.info("device: %s", device)
    tokenizer = modeling.load_tokenizer(entry)
    base = modeling.load_base(entry, device, four_bit=four_bit).eval()
    window = _attention_window(base)
    wholes = _whole_models(base, sources)
    model = _with_adapters(base, sources)
    limit = min(context, context_length(base, tokenizer), window or context)
    mixable = all(source.mixable for source in sources)
    return ModelBank(model, tokenizer, {s.id: s for s in served}, limit, mixable, wholes)


def _attention_window(base: "PreTrainedModel") -> int | None:
    """Tokens within which the model's attention is plain causal attention; None for all."""
    kinds = set(getattr(base.config, "layer_types", None) or ())
    if kinds - {"full_attention", "sliding_attention"}:
        raise UserError(
            f"{base.name_or_path}: the server keeps keys and values of plain attention alone, "
            f"not {', '.join(sorted(kinds))}; try --engine vllm"
        )
    window = getattr(base.config, "sliding_window", None)
    slides = "sliding_attention" in kinds or (not kinds and window)
    return window if slides else None


def _whole_models(base: "PreTrainedModel", sources: Sequence[AdapterSource]) -> "dict[str, PreTrainedModel]":
    """Models of all-weights runs, which share the base's tokenizer and the server's cache."""
    wholes = {}
    for i, source in enumerate(sources):
        if source.whole:
            model = modeling.attach_adapter(base, source.path)
            if _shape(model) != _shape(base):
                raise UserError(
                    f"the model at {source.path} ({source.id}) is of another shape than {base.name_or_path}, "
                    "beside which it is served: give --model the base that it was trained from"
                )
            wholes[f"adapter{i}"] = model
    return wholes


def _shape(model: "PreTrainedModel") -> tuple:
    """What two models must share to keep keys and values in one cache and read one tokenizer's ids."""
    names = ("model_type", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim")
    sizes = [getattr(model.config, name, None) for name in names]
    return (*sizes, *model.get_input_embeddings().weight.shape)


def _with_adapters(
    base: "PreTrainedModel", sources: Sequence[AdapterSource]
) -> "PreTrainedModel | PeftModel":
    from peft import PeftModel
    from safetensors import SafetensorError

    model: PreTrainedModel | PeftModel = base
    for i, source in enumerate(sources):
        if source.whole:
            continue
        name = f"adapter{i}"
        try:
            if model is base:
                model = PeftModel.from_pretrained(base, str(source.path), adapter_name=name)
            else:
                model.load_adapter(str(source.path), adapter_name=name)
        except (RuntimeError, ValueError, KeyError, OSError, SafetensorError) as error:
            lines = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
            detail = (lines or str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise UserError(
                f"the adapter at {source.path} ({source.id}) does not fit {base.name_or_path}: {detail}"
            ) from error
    return model.eval()
