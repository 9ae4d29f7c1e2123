"""The torch engine's own model under `torch.compile`: what a compiler makes of the readable code."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nca.engine.torch_engine import StoredStatistics, TorchEngine
from nca.model import M3dNca
from nca.network import Network


class _CompiledLevel(nn.Module):
    """A level compiled for each grid it meets.

    Grids must be marked static: torch 2.13's inductor fails on a reflected border of symbolic size.
    """

    def __init__(self, level: nn.Module, backend: str) -> None:
        super().__init__()
        self._compiled = torch.compile(level, backend=backend)

    def forward(self, state: Tensor, fired: Tensor, **options: Any) -> Tensor:
        for tensor in (state, fired):
            torch._dynamo.mark_static(tensor)
        result: Tensor = self._compiled(state, fired, **options)
        return result


class CompiledEngine(TorchEngine):
    """The torch engine with its levels compiled. The first steps on a new grid compile."""

    def __init__(self, *, threads: int = 0, backend: str = "inductor") -> None:
        super().__init__(threads=threads)
        self.name = "torch-compile"
        self._backend = backend

    def load(self, network: Network) -> tuple[M3dNca, StoredStatistics]:
        """The model with every level compiled, and its statistics."""
        model, statistics = super().load(network)
        model.levels = nn.ModuleList(_CompiledLevel(level, self._backend) for level in model.levels)
        return model, statistics
