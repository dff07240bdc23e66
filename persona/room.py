"""A key-value cache with room to grow: a token is written into it, not all that went before copied."""

from typing import TYPE_CHECKING

from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    import torch
    from transformers.cache_utils import Cache

ROOM = 64
"""Positions that are added when a layer is full."""


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer, (batch, kv heads, positions, size), as views of larger tensors."""

    def update(
        self, key_states: "torch.Tensor", value_states: "torch.Tensor", *args, **kwargs
    ) -> "tuple[torch.Tensor, torch.Tensor]":
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.stored = (key_states[:, :, :0], value_states[:, :, :0])
        begin = self.get_seq_length()
        end = begin + key_states.shape[2]
        if self.stored[0].shape[2] < end:
            self.stored = tuple(
                _larger(kept, new, begin, end)
                for kept, new in zip(self.stored, (key_states, value_states), strict=True)
            )
        for kept, new in zip(self.stored, (key_states, value_states), strict=True):
            kept[:, :, begin:end] = new
        self.keys, self.values = (kept[:, :, :end] for kept in self.stored)
        return self.keys, self.values

    def batch_select_indices(self, indices: "torch.Tensor") -> None:
        end = self.get_seq_length()
        self.stored = tuple(kept[indices] for kept in self.stored)
        self.keys, self.values = (kept[:, :, :end] for kept in self.stored)

    def join(self, other: "RoomyLayer", positions: int) -> None:
        """Take the other's rows in behind one's own; all end at position `positions`, what is before goes."""
        rows = (self.keys.shape[0], other.keys.shape[0])
        joined = []
        for pair in zip(self.stored, other.stored, strict=True):
            new = pair[0].new_zeros(sum(rows), pair[0].shape[1], positions + ROOM, pair[0].shape[3])
            for part, kept, layer in zip(new.split(rows), pair, (self, other), strict=True):
                end = layer.get_seq_length()
                used = min(end, positions)
                part[:, :, positions - used : positions] = kept[:, :, end - used : end]
            joined.append(new)
        self.stored = tuple(joined)
        self.keys, self.values = (kept[:, :, :positions] for kept in self.stored)


def roomy_cache() -> "Cache":
    """An empty cache of such layers, for a model of any depth."""
    from transformers.cache_utils import Cache

    return Cache(layer_class_to_replicate=RoomyLayer)


def join(cache: "Cache", other: "Cache", positions: int) -> None:
    """Take the rows of another cache in, layer by layer (see `RoomyLayer.join`)."""
    for layer, more in zip(cache.layers, other.layers, strict=True):
        layer.join(more, positions)


def _larger(kept: "torch.Tensor", new: "torch.Tensor", begin: int, end: int) -> "torch.Tensor":
    larger = new.new_empty(*new.shape[:2], end + ROOM, new.shape[3])
    larger[:, :, :begin] = kept[:, :, :begin]
    return larger
