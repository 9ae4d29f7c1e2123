"""A run's folder: everything that resuming needs, without pickle."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nca.model import M3dNca
from training.config import TrainingConfig
from training.errors import CheckpointMismatchError
from training.stepping import Stepping

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""What AdamW remembers of a parameter."""


@dataclass
class TrainingState:
    """Where a run is: the model, its moving average, the optimiser, and how many iterations are done.

    ``stepping`` is what computes; checkpoints do not hold it, so a run may be resumed on another engine.
    """

    model: M3dNca
    average: M3dNca
    optimiser: torch.optim.AdamW
    stepping: Stepping
    iteration: int = 0
    seconds: float = 0.0


def fingerprint(config: TrainingConfig) -> str:
    """Identifies what the weights depend on; a run is resumed only under what it was begun with.

    Calibration and the model's description come after the weights and may change.
    """
    trained = config.model_dump_json(
        exclude={"calibration": True, "model": {"name", "licence", "attribution", "intended_use"}}
    )
    return hashlib.sha256(trained.encode()).hexdigest()


def save(state: TrainingState, folder: Path, *, config: TrainingConfig) -> None:
    """Write the checkpoint; a reader sees the old one or the new one, never half of one."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in state.model.named_parameters():
        tensors[f"model.{name}"] = parameter.detach()
        memory = state.optimiser.state[parameter]
        tensors |= {f"optimiser.{moment}.{name}": memory[moment] for moment in MOMENTS}
    tensors |= {f"average.{name}": parameter.detach() for name, parameter in state.average.named_parameters()}
    metadata = {"iteration": state.iteration, "seconds": state.seconds, "config": fingerprint(config)}
    temporary = folder / "checkpoint.tmp"
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        temporary,
        {"run": json.dumps(metadata)},
    )
    temporary.replace(_path(folder))


def restore(state: TrainingState, folder: Path, *, config: TrainingConfig) -> None:
    """Continue ``state`` from the folder's checkpoint.

    Raises:
        CheckpointMismatchError: there is none, or it was made under another configuration.
    """
    path = _path(folder)
    if not path.is_file():
        raise CheckpointMismatchError(f"{folder} holds no checkpoint to resume from")
    metadata = _metadata(path)
    if metadata["config"] != fingerprint(config):
        raise CheckpointMismatchError(f"the checkpoint in {folder} was made under another configuration")
    tensors = load_file(path)
    with torch.no_grad():
        for name, parameter in state.model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
            state.optimiser.state[parameter] = {one: tensors[f"optimiser.{one}.{name}"] for one in MOMENTS}
        for name, parameter in state.average.named_parameters():
            parameter.copy_(tensors[f"average.{name}"])
    state.iteration, state.seconds = int(metadata["iteration"]), float(metadata["seconds"])


def exists(folder: Path) -> bool:
    """Whether the folder holds a run."""
    return _path(folder).is_file()


def _path(folder: Path) -> Path:
    return folder / "checkpoint.safetensors"


def _metadata(path: Path) -> dict[str, float | str]:
    with path.open("rb") as file:  # safetensors: 8 bytes of length, then a JSON header
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    result: dict[str, float | str] = json.loads(header["__metadata__"]["run"])
    return result
