"""Many tensors as one vector: an optimiser step costs a few operations, however many tensors there are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from innerloop_server.learners.learner import Tensors


@dataclass(frozen=True)
class Layout:
    """Where each tensor of a flat dict lies in a vector."""

    shapes: tuple[tuple[str, torch.Size], ...]
    """In the order of the names, which a checkpoint need not keep."""

    @staticmethod
    def of(tensors: Tensors, names: Iterable[str]) -> Layout:
        """Of those called so."""
        return Layout(tuple((name, tensors[name].shape) for name in sorted(names)))

    def join(self, tensors: Tensors) -> torch.Tensor:
        """The vector."""
        return torch.cat([tensors[name].reshape(-1) for name, _ in self.shapes])

    def split(self, vector: torch.Tensor) -> Tensors:
        """Undo :meth:`join`; what comes out are views, differentiable in the vector."""
        parts = torch.split(vector, [shape.numel() for _, shape in self.shapes])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes, parts, strict=True)}
