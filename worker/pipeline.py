"""One scan, top to bottom: read -> prepare -> segment -> judge -> write."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imaging.grid import model_grid_shape, to_model_grid
from imaging.limits import Limits
from imaging.nifti import write_nifti, write_scan
from imaging.preview import render_preview
from imaging.read import is_nifti
from imaging.request import Request, Wanted
from imaging.roi import Region, Roi, locate
from imaging.sandbox import read_in_sandbox
from imaging.volume import Volume
from model_store.contract import far_outside, violations
from model_store.loaded import LoadedVersion, Prepared, StructureResult, on_native_grid, prepare
from model_store.manifest import Manifest
from model_store.signals import input_signals
from nca.engine import Engine, Progress
from nca.ensemble import Prediction, predict
from nca.gate import Gate, Judgement, Policy, Reason
from ncagate import tracing
from worker.dicom import DicomNames, write_dicom
from worker.record import Origin, Record, StructureRecord, caption, worst_of

StageCallback = Callable[[str, float], None]
"""Called with the stage's name and the share of the whole that is done; raising CancelledError stops there."""
STAGES = ("read", "prepare", "segment", "judge", "write")
SURROUNDINGS = 0.25
"""How much of the scan around a region of interest the preview shows, in the region's edges."""
CUT_OFF = "The mask touches the edge of the region of interest; the structure may go on beyond it."


@dataclass(frozen=True)
class Options:
    """What a request chooses: what an accepted mask must show, the ensemble's size, the seed, series and region."""

    policy: Policy
    members: int
    seed: int
    series_uid: str | None = None
    roi: Roi | None = None


@dataclass(frozen=True)
class OutputNames:
    """File names of a result; segmentation and report (DICOM SEG and SR) only of a DICOM series."""

    mask: str = "mask.nii.gz"
    uncertainty: str = "uncertainty.nii.gz"
    preview: str = "preview.png"
    segmentation: str = "segmentation.dcm"
    report: str = "report.dcm"


@dataclass(frozen=True)
class Outcome:
    """What is said of the scan, and the identifiers of the DICOM objects that were made of it."""

    record: Record
    objects: tuple[dict[str, str], ...] = ()


def segment_scan(
    paths: Sequence[Path],
    version: LoadedVersion,
    *,
    engine: Engine,
    options: Options,
    origin: Origin,
    limits: Limits,
    out: Path,
    workdir: Path,
    names: OutputNames = OutputNames(),
    scan_name: str | None = None,
    on_stage: StageCallback = lambda stage, done: None,
    read: Callable[[Request], Volume] = read_in_sandbox,
) -> Outcome:
    """Segment the scan in ``paths``, write mask, uncertainty and preview into ``out``, and return the record.

    The mask is uint8 on the scan's own grid, 0 outside and each structure's label inside; the uncertainty is
    the standard deviation over the members. Of a DICOM series mask and verdict are written as DICOM SEG and SR as well,
    or a warning in the record says why not. ``workdir`` is an empty folder for what is unpacked. A scan that is not one
    NIfTI file already is written as one as well, under ``scan_name``, for viewers. ``read`` reads the scan, or has done
    so already on the same `scan_request`.

    With a region of interest its part of the scan is what is prepared, segmented and judged, as if it had come alone;
    the results lie on the whole scan's grid, and are 0 outside.

    Raises:
        ImagingError: the scan cannot be read.
        NcaError: the network cannot run on it.
        CancelledError: the callback asked to stop.
    """
    manifest, clock = version.manifest, _Clock(on_stage)
    engine = engine if manifest.proves(engine.name) else engine.exact()
    with clock.stage("read"):
        whole = read(scan_request(paths, manifest, options=options, limits=limits, workdir=workdir))
        region = locate(whole, options.roi)
        volume = region.cut(whole)
    with clock.stage("prepare"):
        scan, breaches, statistics = _prepare(volume, manifest)
    with clock.stage("segment"):
        results = _segment(scan, version, engine=engine, options=options, clock=clock) if scan else None
        del scan  # what the network saw takes as much memory as the volume
    with clock.stage("judge"):
        results = results or _nothing(volume, manifest)
        records = _judge(results, version, options=options, breaches=breaches)
    with clock.stage("write"):
        found = _labels(results, records)
        labels = region.paste(found)
        _write(whole, region, labels, results, records, manifest=manifest, out=out, names=names)
        if scan_name is not None and not (len(paths) == 1 and paths[0].is_file() and is_nifti(paths[0])):
            write_scan(out / scan_name, whole.array, whole.affine)
        objects = DicomNames(out / names.segmentation, out / names.report)
        dicom = write_dicom(whole, labels, records, manifest=manifest, origin=origin, names=objects)
    cut_off = (CUT_OFF,) if region.cuts(found > 0) else ()
    warnings = (*whole.warnings, *region.warnings, *cut_off, *dicom.warnings)
    record = _record(
        records,
        version=version,
        options=options,
        engine=engine,
        clock=clock,
        warnings=warnings,
        statistics=statistics,
    )
    return Outcome(record, dicom.objects)


def scan_request(
    paths: Sequence[Path], manifest: Manifest, *, options: Options, limits: Limits, workdir: Path
) -> Request:
    """What is asked of the reader for a scan that this version is to segment."""
    wanted = Wanted(options.series_uid, manifest.contract.modalities)
    return Request(paths, workdir, limits, manifest.preprocessing.volumes, wanted)


class _Clock:
    """Seconds per stage, and the callback's calls."""

    def __init__(self, on_stage: StageCallback) -> None:
        self.seconds: dict[str, float] = {}
        self._on_stage = on_stage

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._on_stage(name, 1.0 if name in ("judge", "write") else 0.0)
        start = time.perf_counter()
        with tracing.span(name):
            yield
        self.seconds[name] = time.perf_counter() - start

    def progress(self, progress: Progress) -> None:
        """The engine's progress, as that of the stage "segment", which takes nearly all the time."""
        self._on_stage("segment", progress.fraction)


def _prepare(volume: Volume, manifest: Manifest) -> tuple[Prepared | None, list[Reason], dict[str, float]]:
    """The scan as the network sees it (None where running it makes no sense), its breaches of the contract, signals."""
    contract, preprocessing = manifest.contract, manifest.preprocessing
    if far_outside(contract, preprocessing, grid=model_grid_shape(volume, preprocessing.spacing_mm)):
        prepared, scan, image = None, to_model_grid(volume, spacing=None), None  # resampling it would take long
    else:
        prepared = prepare(volume, preprocessing)
        scan, image = prepared.scan, prepared.image
    breaches = violations(contract, modality=volume.modality, spacing=scan.spacing, extent=scan.extent, image=image)
    if prepared is None:
        breaches.append(Reason("not_segmented", "the scan is so much larger than expected that it was not segmented"))
    return prepared, breaches, input_signals(image, spacing=scan.spacing)


def _segment(
    scan: Prepared, version: LoadedVersion, *, engine: Engine, options: Options, clock: _Clock
) -> list[StructureResult]:
    predictions = predict(
        engine, version.network, scan.image, seed=options.seed, members=options.members, on_progress=clock.progress
    )
    return on_native_grid(scan, predictions)


def _nothing(volume: Volume, manifest: Manifest) -> list[StructureResult]:
    """Empty masks of a scan that no member was run on."""
    blank = np.zeros(volume.array.shape, np.float32)
    nothing = Prediction(
        mean=blank, deviation=blank, members=0, nqm=None, mask_nqm=None, entropy=None, pairwise_dice=None, finite=True
    )
    return [StructureResult(nothing, blank > 0, blank, 0.0) for _ in manifest.structures]


def _judge(
    results: Sequence[StructureResult], version: LoadedVersion, *, options: Options, breaches: Sequence[Reason]
) -> list[StructureRecord]:
    manifest = version.manifest
    labels = {segment.name: segment.label for segment in manifest.segments}  # the union has none
    return [
        _structure_record(name, labels.get(name), result, _judgement(result, gate, options=options, breaches=breaches))
        for name, gate, result in zip(manifest.structures, version.gates, results, strict=True)
    ]


def _judgement(result: StructureResult, gate: Gate, *, options: Options, breaches: Sequence[Reason]) -> Judgement:
    if not result.prediction.members:
        return Judgement("flag", tuple(breaches), options.policy.rule)
    return gate.judge(result.observed, options.policy, violations=breaches)


def _structure_record(name: str, label: int | None, result: StructureResult, judgement: Judgement) -> StructureRecord:
    return StructureRecord(
        label=label,
        name=name,
        verdict=judgement.verdict,
        reasons=judgement.reasons,
        nqm=result.prediction.nqm,
        predicted_dice=judgement.predicted_dice,
        dice_interval=judgement.dice_interval,
        required_dice=judgement.required_dice,
        pairwise_dice=result.prediction.pairwise_dice,
        nqm_threshold=judgement.nqm_threshold,
        volume_ml=result.volume_ml,
    )


def _labels(results: Sequence[StructureResult], records: Sequence[StructureRecord]) -> NDArray[np.uint8]:
    """The mask: uint8 (x, y, z), each structure's label where it is."""
    labels: NDArray[np.uint8] = np.zeros(results[0].mask.shape, np.uint8)
    for record, result in zip(records, results, strict=True):
        if record.label is not None:
            labels[result.mask] = record.label
    return labels


def _write(
    whole: Volume,
    region: Region,
    labels: NDArray[np.uint8],
    results: Sequence[StructureResult],
    records: Sequence[StructureRecord],
    *,
    manifest: Manifest,
    out: Path,
    names: OutputNames,
) -> None:
    uncertainty = region.paste(reduce(np.maximum, (result.deviation for result in results)))
    source = f"ncagate {manifest.name} {manifest.version}"
    write_nifti(out / names.mask, labels, whole.affine, description=source)
    write_nifti(out / names.uncertainty, uncertainty, whole.affine, description=source)
    worst, shown = worst_of(records), region.with_surroundings(SURROUNDINGS)
    picture = render_preview(
        whole.array[shown.slices],
        labels[shown.slices] > 0,
        uncertainty[shown.slices],
        affine=whole.affine,
        caption=caption(worst, manifest=manifest),
        verdict=worst.verdict,
    )
    (out / names.preview).write_bytes(picture)


def _record(
    records: Sequence[StructureRecord],
    *,
    version: LoadedVersion,
    options: Options,
    engine: Engine,
    clock: _Clock,
    warnings: tuple[str, ...],
    statistics: dict[str, float],
) -> Record:
    worst = worst_of(records)
    reasons = dict.fromkeys(reason for record in records for reason in record.reasons)
    return Record(
        verdict=worst.verdict,
        reasons=tuple(reasons),
        rule=options.policy.rule,
        nqm=worst.nqm,
        predicted_dice=worst.predicted_dice,
        dice_interval=worst.dice_interval,
        required_dice=worst.required_dice,
        pairwise_dice=worst.pairwise_dice,
        min_dice=options.policy.min_dice,
        alpha=options.policy.alpha,
        nqm_threshold=worst.nqm_threshold,
        volume_ml=records[-1].volume_ml,
        members=options.members,
        model=version.manifest.name,
        version=version.manifest.version,
        seed=options.seed,
        roi=None if options.roi is None else str(options.roi),
        engine=engine.name,
        seconds=sum(clock.seconds.values()),
        stage_seconds=clock.seconds,
        warnings=warnings,
        input_statistics=statistics,
        segments=tuple(records),
    )
