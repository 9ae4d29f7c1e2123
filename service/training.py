"""/training: models are trained here on the deployment's datasets, and published as candidates."""

from __future__ import annotations

import shutil
from typing import Annotated
from uuid import uuid4

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response

from jobs.datasets import Datasets, run_folder
from jobs.errors import DatasetError
from jobs.models import Training
from jobs.queue import TRAINING
from jobs.repository import PAGE_MAX
from service.errors import Problem
from service.gateway import Gateway, TheGateway
from service.problems import documented
from service.schemas import TrainingList, TrainingView, TrainingWish, training_json

POLL_S = 5
"""What `Retry-After` tells those who wait for a training."""

router = APIRouter(tags=["training"])
_AWAY = ("internal_error", "database_unavailable")


@router.post(
    "/training",
    status_code=202,
    summary="Train a model",
    response_model=TrainingView,
    responses=documented(
        "dataset_not_found", "dataset_unsuitable", "invalid_parameter", "body_too_large", "malformed_request",
        "storage_full", *_AWAY,
    ),
)  # fmt: skip
def train(wish: TrainingWish, gateway: TheGateway) -> Response:
    """Train on a dataset as its `training.toml` says now; what comes of it is published as `candidate`."""
    try:
        config = Datasets(gateway.settings).config(wish.dataset)
    except DatasetError as error:
        raise Problem(error.code, str(error)) from error
    made = gateway.trainings.create(uuid4().hex, dataset=wish.dataset, config=config, client=gateway.client)
    gateway.wake(TRAINING)
    return JSONResponse(training_json(made), 202, {"Location": f"/training/{made.id}", "Retry-After": str(POLL_S)})


@router.get(
    "/training",
    summary="List trainings",
    response_model=TrainingList,
    responses=documented("invalid_parameter", *_AWAY),
)
def list_trainings(gateway: TheGateway, limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 50) -> Response:
    """The newest trainings, newest first."""
    return JSONResponse({"trainings": [training_json(one) for one in gateway.trainings.list(limit)]})


@router.get(
    "/training/{training_id}",
    summary="Show a training",
    response_model=TrainingView,
    responses=documented("training_not_found", *_AWAY),
)
def show_training(training_id: str, gateway: TheGateway) -> Response:
    """State, progress and figures; once it has succeeded, the version."""
    training = _training(gateway, training_id)
    return JSONResponse(training_json(training), headers={} if training.finished else {"Retry-After": str(POLL_S)})


@router.delete(
    "/training/{training_id}",
    status_code=202,
    summary="Cancel or erase a training",
    response_model=None,
    responses={
        202: {"description": "It is being cancelled, or is cancelled already.", "model": TrainingView},
        204: {"description": "It was finished; its row, checkpoints and log are erased. What it published stays."},
        **documented("training_not_found", *_AWAY),
    },
)
def delete_training(training_id: str, gateway: TheGateway) -> Response:
    """Cancel a training that is queued or running; erase one that is finished."""
    if not _training(gateway, training_id).finished:
        gateway.trainings.request_cancel(training_id, gateway.client)
        return JSONResponse(training_json(_training(gateway, training_id)), 202)
    if not gateway.trainings.erase(training_id, gateway.client):
        _training(gateway, training_id)  # another request was faster: 404
    shutil.rmtree(run_folder(gateway.settings, training_id), ignore_errors=True)
    return Response(status_code=204)


def _training(gateway: Gateway, training_id: str) -> Training:
    training = gateway.trainings.get(training_id)
    if training is None:
        raise Problem("training_not_found")
    return training
