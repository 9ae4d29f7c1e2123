"""What a result is, whether it is asked for synchronously or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ncagate.client.errors import NotUnderstoodError
from ncagate.client.types import Job, Reason, Verdict

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image


class Outcome:
    """The verdict on a scan and its figures; ``job`` has all the others.

    Raises:
        NotFinishedError, JobCancelledError, JobFailedError: of a job without a result.
    """

    def __init__(self, job: Job) -> None:
        job.check()
        if job.verdict is None:
            raise NotUnderstoodError("the job has succeeded without a verdict")
        self.job = job
        self.verdict: Verdict = job.verdict

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.job.id} {self.verdict}>"

    @property
    def accepted(self) -> bool:
        """Whether nothing speaks against the mask; False where it is flagged for a person to look."""
        return self.verdict == "accept"

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Why it is flagged; empty where it is not."""
        return self.job.reasons or ()

    @property
    def nqm(self) -> float | None:
        """The NCA quality metric, higher is worse; None where it is undefined (an empty mask)."""
        return self.job.nqm

    @property
    def predicted_dice(self) -> float | None:
        """The Dice that is predicted for the mask, 0 to 1."""
        return self.job.predicted_dice

    @property
    def dice_interval(self) -> tuple[float, float] | None:
        """Range of the true Dice (90 %); only with the rule `conformal`."""
        return self.job.dice_interval

    @property
    def volume_ml(self) -> float | None:
        """Volume of the mask, in ml."""
        return self.job.volume_ml

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.job.model

    @property
    def version(self) -> str:
        """The version that was used."""
        return self.job.version


def image_of(data: bytes) -> Nifti1Image:
    """The image in a gzipped NIfTI file. nibabel is imported here, and is not of the light install."""
    import gzip

    from nibabel.nifti1 import Nifti1Image

    image: Nifti1Image = Nifti1Image.from_bytes(gzip.decompress(data))
    return image
