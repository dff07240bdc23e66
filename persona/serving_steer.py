"""The request field `steer`: persona vectors added while an answer is generated.

`"steer": "holmes=1.5,openness@4=-1"` or `"steer": {"holmes": 1.5, "openness@4": -1}`; the vectors are those
that persona_vectors.py extracted from the server's base. Added to the response alone, row by row: answers
with other vectors, or none, are computed in the same batch.
"""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persona import steering
from persona.activations import blocks_of, hidden_size, states_of, with_states
from persona.errors import UserError
from persona.serving_extras import Extra

if TYPE_CHECKING:
    import torch

STRONGEST = 100.0
"""A larger coefficient leaves nothing of the model; it is refused."""
MOST = 8
"""Vectors in one request."""


class Steer(Extra):
    """Steering by the vectors in a folder, for every model of the server; they are all of one shape."""

    def __init__(self, models: "Sequence[torch.nn.Module]", folder: Path):
        self.blocks, self.folder = [blocks_of(model) for model in models], folder
        self.layers, self.width = len(self.blocks[0]), hidden_size(models[0])

    def check(self, value: Any, model_id: str) -> "dict[int, torch.Tensor]":
        """What is added, by layer: (hidden,)."""
        if isinstance(value, dict):
            value = ",".join(f"{name}={coefficient}" for name, coefficient in value.items())
        if not isinstance(value, str) or not value:
            raise ValueError('give TRAIT=COEFFICIENT, such as "holmes=1.5", or {"holmes": 1.5}')
        try:
            wishes = steering.parse(value)
            self._allow(wishes)
            additions = steering.additions_of(wishes, self.folder)
            return steering.summed(additions, self.layers, self.width)
        except UserError as error:
            raise ValueError(str(error).replace(f"{self.folder}/", "")) from error

    def _allow(self, wishes: list[steering.Wish]) -> None:
        """Vectors of the folder alone: a client names no other file."""
        there = sorted(path.stem for path in self.folder.glob("*.safetensors"))
        if len(wishes) > MOST:
            raise UserError(f"at most {MOST} vectors in a request")
        for wish in wishes:
            if not re.fullmatch(r"[\w-]+", wish.name) or wish.name not in there:
                raise UserError(f"no vector {wish.name!r}; there are: {', '.join(there) or 'none'}")
            if not math.isfinite(wish.coefficient) or abs(wish.coefficient) > STRONGEST:
                raise UserError(f"coefficients go from -{STRONGEST:g} to {STRONGEST:g}")

    def applied(self, values: "list[dict[int, torch.Tensor] | None]") -> AbstractContextManager:
        """Hooks around a forward pass, which add to the last token of every row its own vectors."""
        return self._hooked(values)

    @contextmanager
    def _hooked(self, values: "list[dict[int, torch.Tensor] | None]") -> Iterator[None]:
        import torch

        handles = []
        try:
            for layer in sorted({layer for value in values if value for layer in value}):
                none = torch.zeros(self.width)
                added = torch.stack([(value or {}).get(layer, none) for value in values])
                for blocks in self.blocks:  # one of the models computes this pass
                    handles.append(blocks[layer].register_forward_hook(_adding(added)))
            yield
        finally:
            for handle in handles:
                handle.remove()


def _adding(added: "torch.Tensor"):
    """A hook that adds (rows, hidden) to the last token's states; they are (rows, tokens, hidden)."""

    def hook(module, arguments, output):
        states = states_of(output)
        steered = states.clone()
        steered[:, -1] += added.to(states.device, states.dtype)
        return with_states(output, steered)

    return hook
