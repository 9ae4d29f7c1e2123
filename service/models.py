"""/models: what there is to segment with, and which version an alias means."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from jobs.audit import Action
from model_store.errors import CorruptVersionError, ModelStoreError
from model_store.manifest import Manifest
from model_store.registry import Registry
from service.calibration_schemas import CalibrationView, StructureOutcomes
from service.gateway import TheGateway
from service.health_schemas import ModelHealth, shadow_view, version_health
from service.problems import documented
from service.schemas import (
    AliasChange,
    AliasView,
    ModelList,
    ModelView,
    VersionSummary,
)

router = APIRouter(tags=["models"])
Name = Annotated[str, Path(max_length=64, examples=["hippocampus"])]
Version = Annotated[str, Path(max_length=64, examples=["1.0.0"])]
Alias = Annotated[str, Path(max_length=64, examples=["production"])]


@router.get("/models", summary="List models", responses=documented("internal_error"))
def list_models(gateway: TheGateway) -> ModelList:
    """All models with their versions."""
    return ModelList(models=[_view(gateway.registry, name) for name in gateway.registry.names()])


@router.get(
    "/models/{name}",
    summary="Show a model",
    responses=documented("model_not_found", "invalid_parameter", "internal_error"),
)
def show_model(name: Name, gateway: TheGateway) -> ModelView:
    """One model with its versions."""
    return _view(gateway.registry, name)


@router.get(
    "/models/{name}/health",
    summary="Show whether a model still sees what it knows",
    responses=documented("model_not_found", "invalid_parameter", "internal_error"),
)
def show_health(name: Name, gateway: TheGateway) -> ModelHealth:
    """The last jobs of every version against the clean scans of its calibration; candidates against their versions."""
    versions, shadows = gateway.drift.model(name), gateway.shadows
    return ModelHealth(
        model=name,
        versions=[version_health(one) for one in versions],
        shadows=[shadow_view(shadows.compare(pair)) for pair in shadows.pairs(name)],
    )


@router.get(
    "/models/{name}/versions/{version}",
    summary="Show a version",
    responses=documented(
        "model_not_found", "version_not_found", "invalid_parameter", "internal_error", "version_corrupt"
    ),
)
def show_version(name: Name, version: Version, gateway: TheGateway) -> Manifest:
    """The version's manifest: architecture, input contract, training, metrics, calibration, checksums."""
    return gateway.registry.manifest(name, version)


@router.get(
    "/models/{name}/versions/{version}/calibration",
    summary="Show a version's calibration",
    responses=documented(
        "model_not_found", "version_not_found", "invalid_parameter", "internal_error", "version_corrupt"
    ),
)
def show_calibration(name: Name, version: Version, gateway: TheGateway) -> CalibrationView:
    """What was predicted of the calibration's outcomes and what came of them, a list of points per structure."""
    manifest = gateway.registry.manifest(name, version)
    tables = gateway.registry.load_calibration(manifest)
    return CalibrationView(
        model=name,
        version=version,
        structures=[
            StructureOutcomes(
                name=structure,
                predicted=table.predicted.tolist(),
                dice=table.dice.tolist(),
                refused=table.refused.tolist(),
            )
            for structure, table in zip(manifest.structures, tables, strict=True)
        ],
    )


@router.put(
    "/models/{name}/aliases/{alias}",
    summary="Promote a version",
    responses=documented(
        "model_not_found", "version_not_found", "alias_invalid", "invalid_parameter", "body_too_large",
        "malformed_request", "internal_error", "version_corrupt", "storage_full",
    ),
)  # fmt: skip
def set_alias(name: Name, alias: Alias, change: AliasChange, gateway: TheGateway) -> AliasView:
    """Let the alias mean this version from now on. Jobs already submitted keep theirs."""
    gateway.registry.set_alias(name, alias, change.version)
    gateway.note(Action.PROMOTED, f"{name} {alias} {change.version}")
    return AliasView(model=name, alias=alias, version=change.version)


@router.post(
    "/models/{name}/aliases/{alias}/rollback",
    summary="Roll an alias back",
    responses=documented(
        "model_not_found", "version_not_found", "alias_invalid", "invalid_parameter",
        "internal_error", "version_corrupt", "storage_full",
    ),
)  # fmt: skip
def roll_back(name: Name, alias: Alias, gateway: TheGateway) -> AliasView:
    """Let the alias mean again what it meant before."""
    version = gateway.registry.rollback(name, alias)
    gateway.note(Action.PROMOTED, f"{name} {alias} {version}")
    return AliasView(model=name, alias=alias, version=version)


def _view(registry: Registry, name: str) -> ModelView:
    versions = [_summary(registry, name, version) for version in registry.versions(name)]
    return ModelView(name=name, versions=versions, aliases=_aliases(registry, name), link=f"/models/{name}")


def _aliases(registry: Registry, name: str) -> dict[str, str] | None:
    """None where they are damaged: that must not hide the other models."""
    try:
        return dict(registry.aliases(name))
    except CorruptVersionError:
        return None


def _summary(registry: Registry, name: str, version: str) -> VersionSummary:
    link = f"/models/{name}/versions/{version}"
    try:
        manifest = registry.manifest(name, version)
        registry.check(manifest)
    except ModelStoreError:
        return VersionSummary(version=version, usable=False, created=None, link=link)
    return VersionSummary(version=version, usable=True, created=manifest.created, link=link)
