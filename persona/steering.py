"""Steering: add coefficient x vector to what chosen blocks put out, while a `with` block is open.

Works on a plain model, under a LoRA adapter and on a 4-bit base alike, since it touches outputs and not
weights; with a key-value cache and left-padded batches; several may be open at once and add up.

    with Steering(model, [Addition(5, vector, 1.5)]):
        answer_batch(model, tokenizer, conversations)
"""

import json
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import config
from persona.activations import blocks_of, hidden_size, states_of, with_states
from persona.errors import UserError
from persona.runlog import sha256_of
from persona.vectors import PersonaVector, folder_of, load

if TYPE_CHECKING:
    import torch

Positions = Literal["all", "prompt", "response"]
WISH = re.compile(r"^\s*(?P<name>[\w./-]+?)(?:@(?P<layer>\d+))?\s*=\s*(?P<coefficient>[^=\s]+)\s*$")


@dataclass(frozen=True)
class Addition:
    """What is added at one block: `coefficient` x `vector` (hidden,)."""

    layer: int
    vector: "torch.Tensor"
    coefficient: float


def summed(additions: Sequence[Addition], n_layers: int, width: int) -> "dict[int, torch.Tensor]":
    """What is added in all, by layer: (width,).

    Raises:
        UserError: no such layer, a vector of another width.
    """
    sums: dict[int, torch.Tensor] = {}
    for a in additions:
        if not 0 <= a.layer < n_layers:
            raise UserError(f"no layer {a.layer} to steer: the model has layers 0 to {n_layers - 1}")
        if tuple(a.vector.shape) != (width,):
            raise UserError(
                f"a vector of shape {tuple(a.vector.shape)} does not fit a model of width {width}: "
                "extract it from this model"
            )
        sums[a.layer] = sums.get(a.layer, 0) + a.coefficient * a.vector.float()
    return sums


class Steering:
    """Context manager that steers a model.

    Positions: `prompt` is everything up to the prompt's last token, `response` is that token and all after
    it, from which the response's tokens are predicted. In generation they follow from the pass: a pass of one
    token is a step of the response, a longer one is the prompt, which ends at the batch's right edge (left
    padding). For a teacher-forced pass say where responses are: `steering.response`, a (batch, tokens) mask.
    """

    def __init__(
        self,
        model: "torch.nn.Module",
        additions: Sequence[Addition],
        positions: Positions = "all",
        only_in_training: bool = False,
    ) -> None:
        """Check layers and shapes; nothing is hooked yet.

        Raises:
            UserError: nothing to add, no decoder blocks, no such layer, a vector of another width.
        """
        if not additions:
            raise UserError("nothing to steer with: give at least one vector")
        blocks = blocks_of(model)
        sums = summed(additions, len(blocks), hidden_size(model))
        self.positions = positions
        self.only_in_training = only_in_training
        self.response: torch.Tensor | None = None
        self._sums = [(blocks[layer], total) for layer, total in sums.items()]
        self._handles: list = []

    def __enter__(self) -> "Steering":
        if self._handles:
            raise RuntimeError("this steering is open already")
        self._handles = [block.register_forward_hook(self._hook(total)) for block, total in self._sums]
        return self

    def __exit__(self, *error) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _hook(self, total: "torch.Tensor"):
        placed: dict = {}

        def add(module, arguments, output):
            if self.only_in_training and not module.training:
                return output
            states = states_of(output)
            key = (states.device, states.dtype)
            if key not in placed:
                placed[key] = total.to(*key)
            where = self._where(states)
            added = placed[key] if where is None else placed[key] * where.unsqueeze(-1)
            return with_states(output, states + added)

        return add

    def _where(self, states: "torch.Tensor") -> "torch.Tensor | None":
        """(batch, tokens) of 1 where to add and 0 elsewhere; None for everywhere."""
        import torch

        if self.positions == "all":
            return None
        batch, tokens = states.shape[:2]
        if self.response is not None:
            response = self.response.to(states.device)
        else:
            response = torch.zeros((batch, tokens), dtype=torch.bool, device=states.device)
            response[:, -1] = True
        if self.positions == "response":
            return response.to(states.dtype)
        before = ~response
        if tokens > 1:
            before |= response & (response.cumsum(1) == 1)  # the prompt's last token is in both
        return before.to(states.dtype)


@dataclass(frozen=True)
class Wish:
    """One vector that a user asks for: `holmes=1.5`, or `holmes@5=1.5` for layer 5."""

    name: str
    coefficient: float
    layer: int | None = None


def parse(text: str) -> list[Wish]:
    """`holmes=1.5,openness@4=-1` as wishes.

    Raises:
        UserError: a part that does not read so.
    """
    wishes = []
    for part in text.split(","):
        match = WISH.match(part)
        try:
            wishes.append(
                Wish(
                    match["name"],
                    float(match["coefficient"]),
                    int(match["layer"]) if match["layer"] else None,
                )
            )
        except (TypeError, ValueError) as error:
            raise UserError(
                f"cannot read {part.strip()!r} as steering: give TRAIT=COEFFICIENT or "
                "TRAIT@LAYER=COEFFICIENT, such as holmes=1.5,openness@4=-1"
            ) from error
    return wishes


def recommended_layer(vector: PersonaVector, folder: Path) -> int:
    """The layer that a sweep found best for effect, else that which scored best, else the middle one."""
    for report in ("steer", "score"):
        path = folder / f"{vector.name}.{report}.json"
        if path.is_file():
            layer = json.loads(path.read_text(encoding="utf-8")).get("recommended", {}).get("layer")
            if isinstance(layer, int):
                return layer
    return vector.n_layers // 2


def path_of(wish: Wish, folder: Path) -> Path:
    """The vector file that a wish names: in the folder, or by its own path."""
    return Path(wish.name) if wish.name.endswith(".safetensors") else folder / f"{wish.name}.safetensors"


def additions_of(wishes: Sequence[Wish], folder: Path) -> list[Addition]:
    """The vectors in a folder of `persona_vectors.py extract` that wishes ask for.

    Raises:
        UserError: no such vector, or a layer that it does not have.
    """
    found = []
    for wish in wishes:
        path = path_of(wish, folder)
        vector = load(path)
        layer = wish.layer if wish.layer is not None else recommended_layer(vector, path.parent)
        if layer >= vector.n_layers:
            raise UserError(f"{path} has layers 0 to {vector.n_layers - 1}, not {layer}")
        found.append(Addition(layer, vector.direction()[layer], wish.coefficient))
    return found


def steer(model: "torch.nn.Module", text: str, folder: Path, positions: Positions = "all") -> Steering:
    """A `Steering` from what a user writes, to be opened by `with`."""
    return Steering(model, additions_of(parse(text), folder), positions)


def _prevention(text: str) -> list[Wish]:
    """`openness:2` as wishes; preventative steering is written with a colon."""
    return parse(text.replace(":", "="))


def wished_sha256(text: str, folder: Path) -> str:
    """One hash over the vectors, layers and coefficients of preventative steering.

    Raises:
        UserError: a vector that is not there.
    """
    wishes = _prevention(text)
    layers = [a.layer for a in additions_of(wishes, folder)]
    return sha256_of(*(path_of(w, folder) for w in wishes), json.dumps([text, layers]))


def preventing(
    model: "torch.nn.Module", text: str | None, entry: config.ModelEntry
) -> AbstractContextManager:
    """Preventative steering while training: the base's vectors at all positions, and never in evaluation.

    Chen et al. 2025, section 5: the weights need not learn what is added already. Nothing without a text.
    """
    if text is None:
        return nullcontext()
    additions = additions_of(_prevention(text), folder_of(entry))
    return Steering(model, additions, only_in_training=True)
