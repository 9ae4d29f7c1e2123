"""The manifests for a cluster, as Kustomize renders them, against the schemas of Kubernetes' own API."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from ncagate.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = {"ScaledObject"}
"""KEDA's: its schema is not Kubernetes'."""


@pytest.fixture(scope="module")
def resources() -> list[dict[str, Any]]:
    if not shutil.which("kubectl"):
        reason = "`kubectl` is not on this machine"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    command = ["kubectl", "kustomize", str(ROOT / "kubernetes")]
    return list(yaml.safe_load_all(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def pods(resources: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in resources if one["kind"] == "Deployment"
    }


def one(resources: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = [each for each in resources if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


class TestSchema:
    def test_every_resource_is_valid_and_has_no_field_that_kubernetes_does_not_know(
        self, resources: list[dict[str, Any]]
    ) -> None:
        known = [resource for resource in resources if resource["kind"] not in FOREIGN]
        assert len(known) >= 8
        for resource in known:
            kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)

    def test_a_misspelt_field_would_be_found(self, resources: list[dict[str, Any]]) -> None:
        deployment = one(resources, "Deployment", "gateway")
        wrong = {**deployment, "spec": {**deployment["spec"], "replicsa": 2}}
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


class TestPods:
    def test_nobody_is_root_and_nothing_is_written_outside_volumes(self, resources: list[dict[str, Any]]) -> None:
        assert set(pods(resources)) == {"gateway", "worker"}
        for pod in pods(resources).values():
            assert pod["securityContext"]["runAsNonRoot"]
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert not pod["automountServiceAccountToken"]
            for container in pod["containers"]:
                security = container["securityContext"]
                assert security["readOnlyRootFilesystem"]
                assert not security["allowPrivilegeEscalation"]
                assert security["capabilities"] == {"drop": ["ALL"]}
                assert container["livenessProbe"]
                assert container["resources"]["limits"]["memory"]
                assert container["image"] == "ncagate:0.1.0"

    def test_the_user_is_that_of_the_image(self, resources: list[dict[str, Any]]) -> None:
        dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
        for pod in pods(resources).values():
            assert f"--uid {pod['securityContext']['runAsUser']} " in dockerfile

    def test_every_setting_is_one(self, resources: list[dict[str, Any]]) -> None:
        (configured,) = [resource["data"] for resource in resources if resource["kind"] == "ConfigMap"]
        known = {f"NCAGATE_{name.upper()}" for name in Settings.model_fields}
        given = set(configured)
        for pod in pods(resources).values():
            given |= {variable["name"] for container in pod["containers"] for variable in container.get("env", [])}
        assert {name for name in given if name.startswith("NCAGATE_")} <= known

    def test_secrets_are_references(self, resources: list[dict[str, Any]]) -> None:
        assert not [resource for resource in resources if resource["kind"] == "Secret"]
        for pod in pods(resources).values():
            for container in pod["containers"]:
                for variable in container["env"]:
                    assert not variable["name"].endswith("_URL") or "secretKeyRef" in variable["valueFrom"]

    def test_a_worker_is_given_longer_than_it_gives_its_scan(self, resources: list[dict[str, Any]]) -> None:
        (configured,) = [resource["data"] for resource in resources if resource["kind"] == "ConfigMap"]
        assert pods(resources)["worker"]["terminationGracePeriodSeconds"] > float(configured["NCAGATE_SOFT_SHUTDOWN_S"])

    def test_a_worker_has_as_many_threads_as_processors(self, resources: list[dict[str, Any]]) -> None:
        (worker,) = pods(resources)["worker"]["containers"]
        values = {variable["name"]: variable.get("value") for variable in worker["env"]}
        assert values["NCAGATE_THREADS"] == worker["resources"]["limits"]["cpu"]

    def test_every_part_is_kept_through_a_drain(self, resources: list[dict[str, Any]]) -> None:
        for name in pods(resources):
            budget = one(resources, "PodDisruptionBudget", name)
            labels = one(resources, "Deployment", name)["spec"]["template"]["metadata"]["labels"]
            assert budget["spec"]["selector"]["matchLabels"] == labels


class TestScaling:
    def test_is_by_a_metric_that_there_is_and_of_the_workers(self, resources: list[dict[str, Any]]) -> None:
        scaled = one(resources, "ScaledObject", "worker")["spec"]
        assert scaled["scaleTargetRef"] == {"name": "worker"}
        assert "replicas" not in one(resources, "Deployment", "worker")["spec"]
        assert scaled["minReplicaCount"] >= 1
        (trigger,) = scaled["triggers"]
        metric = trigger["metadata"]["query"].removeprefix("max(").removesuffix(")")
        assert f"| `{metric}` | gauge |" in (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


class TestNetwork:
    def test_nobody_may_call_a_worker(self, resources: list[dict[str, Any]]) -> None:
        policy = one(resources, "NetworkPolicy", "worker")["spec"]
        assert policy["policyTypes"] == ["Ingress"]
        assert "ingress" not in policy
