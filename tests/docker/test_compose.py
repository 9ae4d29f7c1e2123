import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from pacs.config import StowDestination, load_pacs

ROOT = Path(__file__).resolve().parents[2]


def render(*files: str, environment: Mapping[str, str] | None = None) -> str:
    """What the Compose client makes of these files."""
    clients = [["docker", "compose"], ["docker-compose"]]
    for client in clients:
        if shutil.which(client[0]) and subprocess.run([*client, "version"], capture_output=True).returncode == 0:
            named = [word for file in files for word in ("-f", str(ROOT / file))]
            named += [word for profile in ("pacs", "trainer") for word in ("--profile", profile)]
            command = [*client, "--project-directory", str(ROOT), *named, "config"]
            variables = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **(environment or {})}
            result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=variables)
            assert result.returncode == 0, result.stderr
            return result.stdout
    reason = "neither `docker compose` nor `docker-compose` is on this machine"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def rendered() -> str:
    return render("docker-compose.yml")


class TestCompose:
    def test_is_valid_and_has_every_part(self, rendered: str) -> None:
        for part in ("gateway:", "worker:", "redis:", "postgres:", "prometheus:", "grafana:", "orthanc:", "deliverer:"):
            assert f"\n  {part}" in rendered

    def test_no_password_stands_in_it(self, rendered: str) -> None:
        assert "/run/secrets/redis_password" in rendered
        assert "redis://:" not in rendered

    def test_orthanc_knows_ncagate_and_its_password_from_a_secret(self, rendered: str) -> None:
        assert "NCAGATE_DICOMWEB: http://gateway:8000/dicomweb" in rendered
        assert "/run/secrets/orthanc_password" in rendered or "source: orthanc_password" in rendered
        assert "ORTHANC_PASSWORD" not in rendered

    def test_the_routing_table_is_valid_and_names_the_orthanc_beside(self, rendered: str) -> None:
        config = load_pacs(ROOT / "docker" / "pacs.toml")
        (destination,) = config.destination
        assert isinstance(destination, StowDestination)
        assert destination.url == "http://orthanc:8042/dicom-web"
        assert {name for route in config.route for name in route.destinations} == {destination.name}
        serving = rendered.count("image: ncagate:") + 1  # the trainer's image is another one
        assert rendered.count("NCAGATE_PACS: /etc/ncagate/pacs.toml") == serving

    def test_gateway_and_trainer_see_the_same_datasets(self, rendered: str) -> None:
        assert rendered.count("NCAGATE_DATASETS: /datasets") == 2
        assert rendered.count("/var/lib/ncagate/data") > 2

    def test_redis_keeps_what_it_is_given(self, rendered: str) -> None:
        for option in ("--requirepass", "--appendonly yes", "noeviction"):
            assert option in " ".join(rendered.split())

    def test_the_gateway_is_reached_from_this_host_only(self, rendered: str) -> None:
        assert "127.0.0.1" in rendered
        assert "0.0.0.0:8000" not in rendered


class TestSeveralMachines:
    def test_is_valid_with_the_bucket_of_the_environment_and_its_key_from_a_secret(self) -> None:
        environment = {
            "NCAGATE_BLOBS_URL": "s3://scans/ncagate",
            "NCAGATE_STORE_URL": "s3://scans/models",
            "AWS_ENDPOINT_URL_S3": "https://store.example",
        }
        rendered = render("docker-compose.yml", "docker/several-machines.yml", environment=environment)
        for name, value in environment.items():
            assert rendered.count(f"{name}: {value}") == 6  # of gateway, worker, keys, listener, deliverer, trainer
        assert "/run/secrets/s3_credentials" in rendered
        assert (
            rendered.count("NCAGATE_PACS: /etc/ncagate/pacs.toml") == rendered.count("image: ncagate:") + 1
        )  # trainer

    def test_without_a_bucket_it_does_not_start(self) -> None:
        with pytest.raises(AssertionError, match="s3://bucket/prefix"):
            render("docker-compose.yml", "docker/several-machines.yml")


class TestDockerfile:
    def test_every_package_of_the_wheel_is_copied(self) -> None:
        text = (ROOT / "docker" / "Dockerfile").read_text()
        packages = ["imaging", "nca", "training", "model_store", "jobs", "service", "worker", "ncagate"]
        assert [one for one in packages if f"COPY {one} {one}\n" not in text] == []

    def test_the_wheel_is_built_once_with_the_native_engine_and_the_compiler_stays_behind(self) -> None:
        stages = (ROOT / "docker" / "Dockerfile").read_text().split("\nFROM ")[1:]
        assert [stage.splitlines()[0].split()[-1] for stage in stages if "g++" in stage] == ["build"]
        assert [one for stage in stages for one in re.findall(r"RUN (.*pip wheel.*)", stage)] == [
            "NCAGATE_REQUIRE_NATIVE=1 pip wheel --no-deps -w /wheels ."
        ]
        assert re.match(r"python:\S+ AS runtime\n", stages[1])

    def test_orthancs_has_the_whole_recipe(self) -> None:
        folder = ROOT / "docker" / "orthanc"
        (copied,) = re.findall(r"^COPY (.*) /etc/ncagate/$", (folder / "Dockerfile").read_text(), re.MULTILINE)
        assert {*copied.split()} == {one.name for one in folder.iterdir()} - {"Dockerfile"}

    def test_nothing_runs_as_root(self) -> None:
        text = (ROOT / "docker" / "Dockerfile").read_text()
        assert "\nUSER orthanc\n" in (ROOT / "docker" / "orthanc" / "Dockerfile").read_text()
        assert text.rindex("\nUSER ncagate") > text.index("AS runtime")
        assert "USER root" not in text
