"""What somebody wants done with a scan, and the request that it becomes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from jobs.errors import UnsuitableWishError, WebhookRefusedError
from jobs.models import SEED_MAX, SERIES_UID, JobRequest, RoiText, WebhookText
from jobs.state import Priority
from model_store.registry import Registry
from nca.gate import Rule
from ncagate.settings import Settings
from ncagate.webhook_hosts import WebhookHosts, WebhookUrl


class Wish(BaseModel):
    """The plain fields of POST /segment, and of a route; what is left out is the deployment's or the version's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str = Field(description="Name of the model.", examples=["hippocampus"])
    version: str | None = Field(
        None, description="A version or an alias; default: the alias `production`, else the newest version."
    )
    min_dice: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Dice the mask must be predicted to reach to be accepted; default: the deployment's or version's.",
    )
    alpha: float | None = Field(
        None, gt=0, lt=1, description="Largest share of failures among what is accepted; default: as of `min_dice`."
    )
    rule: Rule | None = Field(
        None,
        description="What an accepted mask must show: a predicted Dice with a stated risk (`conformal`, the default), "
        "or an NQM below the paper's threshold (`nqm`).",
    )
    members: int | None = Field(
        None, ge=1, description="Size of the ensemble; default: the one the version was calibrated with."
    )
    seed: int = Field(
        0,
        ge=0,
        le=SEED_MAX,
        description="Seed of the fire masks: the same scan, version and seed, the same mask.",
    )
    series_uid: str | None = Field(
        None,
        pattern=SERIES_UID,
        description="Series Instance UID of the DICOM series to segment, where several are sent; "
        "default: the only one that fits the model.",
    )
    roi: RoiText | None = Field(
        None,
        description="Region of interest, `SPACE:x0,y0,z0:x1,y1,z1` with SPACE one of `ras`, `lps`, `centre` (mm) and "
        "`voxel`: only this part of the scan is segmented; default: all of it.",
        examples=["ras:-45,-47,-31:-9,3,9"],
    )
    webhook: WebhookText | None = Field(
        None,
        description="URL (https) that is told of the job's end, whatever that is; the deployment must allow its host.",
        examples=["https://ris.example.org/hooks/ncagate"],
    )
    priority: Priority = Field(
        Priority.ROUTINE, description="`urgent` goes before all that is `routine`, whoever sent it."
    )

    def request(self, registry: Registry, settings: Settings, *, destinations: tuple[str, ...] = ()) -> JobRequest:
        """The request with its version pinned and its defaults filled in; ``destinations`` get the result.

        Raises:
            ModelStoreError: there is no such version, or it is damaged: refused now, not by a worker later.
            UnsuitableWishError: a larger ensemble than the deployment allows.
            WebhookRefusedError: a webhook that the deployment does not allow.
        """
        manifest = registry.resolve(self.model, self.version)
        registry.check(manifest)
        members = self.members or manifest.calibration.members
        if members > settings.members_max:
            raise UnsuitableWishError(f"members: at most {settings.members_max}")
        if self.webhook is not None:
            _check_webhook(self.webhook, settings)
        policy = manifest.calibration.policy(
            min_dice=settings.min_dice if self.min_dice is None else self.min_dice,
            alpha=settings.alpha if self.alpha is None else self.alpha,
            rule=self.rule or settings.rule,
        )
        return JobRequest(
            model=manifest.name,
            version=manifest.version,
            min_dice=policy.min_dice,
            alpha=policy.alpha,
            rule=policy.rule,
            members=members,
            seed=self.seed,
            series_uid=self.series_uid,
            roi=self.roi,
            priority=self.priority,
            destinations=destinations,
            webhook=self.webhook,
        )


def _check_webhook(url: str, settings: Settings) -> None:
    if settings.webhook_hosts is None:
        raise WebhookRefusedError("webhook: this deployment sends none")
    if not WebhookHosts.parse(settings.webhook_hosts).permit(WebhookUrl.parse(url)):
        raise WebhookRefusedError("webhook: this deployment does not send to this host and port")
