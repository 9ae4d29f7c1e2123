"""What the wheel has in it, and that it works where it is installed, with and without a compiler."""

import platform
import re
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Install = Callable[[Path], Path]
NOT_SHIPPED = re.compile(r"nca/engine/native/(src/|CMakeLists\.txt)")
CHOICE = """
import logging
logging.basicConfig(format="%(levelname)s %(message)s")
from nca.engine import get_engine
print(get_engine("auto").name, get_engine("auto").name)
"""


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """What a command said; it is not run in the checkout, whose packages Python would find first."""
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result


class TestContents:
    def test_every_file_of_the_packages_but_the_cpp_sources_and_one_extension_module(
        self, source: Path, wheel: Path
    ) -> None:
        files = {str(path.relative_to(source)) for path in source.glob("*/**/*") if path.is_file()}
        shipped = {name for name in names(wheel) if ".dist-info/" not in name}
        assert {name for name in files if not NOT_SHIPPED.match(name)} <= shipped
        (module,) = shipped - files
        assert re.fullmatch(r"nca/engine/native/_core\.[\w-]+\.so", module)
        assert not any(NOT_SHIPPED.match(name) for name in shipped)

    def test_models_migrations_configurations_types_and_licences(self, wheel: Path) -> None:
        shipped = "\n".join(sorted(names(wheel)))
        for pattern in (
            *(
                rf"model_store/published/{model}/[\w-]+/{file}"
                for model in ("hippocampus", "hippocampus-parts")
                for file in (r"model\.safetensors", r"manifest\.json", r"calibration\.csv", r"MODEL_CARD\.md")
            ),
            r"jobs/migrations/versions/\w+\.py",
            r"training/configs/hippocampus\.toml",
            r"nca/engine/native/_core\.pyi",
            r"imaging/py\.typed",
            r"ncagate-[\d.]+\.dist-info/licenses/LICENSE",
            r"ncagate-[\d.]+\.dist-info/licenses/model_store/published/hippocampus/LICENSE",
            r"ncagate-[\d.]+\.dist-info/licenses/model_store/published/hippocampus-parts/LICENSE",
        ):
            assert re.search(f"^{pattern}$", shipped, re.MULTILINE), pattern

    def test_the_wheel_without_the_module_has_all_the_rest_and_is_for_any_machine(
        self, source: Path, pure_wheel: Path
    ) -> None:
        files = {str(path.relative_to(source)) for path in source.glob("*/**/*") if path.is_file()}
        shipped = {name for name in names(pure_wheel) if ".dist-info/" not in name}
        assert shipped == {name for name in files if not NOT_SHIPPED.match(name)}
        assert pure_wheel.name.endswith("-py3-none-any.whl")


class TestInstalled:
    def test_the_kernels_agree_with_numpy_and_are_those_of_this_machine(
        self, wheel: Path, install: Install, tmp_path: Path
    ) -> None:
        binaries = install(wheel)
        text = run(binaries / "python", ROOT / "tests" / "native" / "try_kernels.py", cwd=tmp_path).stdout
        assert [line.split()[0] for line in text.splitlines()] == supported()

    def test_the_command_finds_the_models_that_come_with_it_and_auto_is_the_native_engine(
        self, wheel: Path, install: Install, tmp_path: Path
    ) -> None:
        binaries = install(wheel)
        assert "hippocampus" in run(binaries / "ncagate", "models", "list", cwd=tmp_path).stdout
        choice = run(binaries / "python", "-c", CHOICE, cwd=tmp_path)
        assert (choice.stdout, choice.stderr) == ("native native\n", "")

    def test_without_a_compiler_the_torch_engine_serves_and_one_warning_says_so(
        self, pure_wheel: Path, install: Install, tmp_path: Path
    ) -> None:
        binaries = install(pure_wheel)
        assert "hippocampus" in run(binaries / "ncagate", "models", "list", cwd=tmp_path).stdout
        choice = run(binaries / "python", "-c", CHOICE, cwd=tmp_path)
        assert choice.stdout == "torch torch\n"
        (warning,) = choice.stderr.splitlines()
        assert warning.startswith("WARNING the engine native does not run here")


class TestRequired:
    def test_where_the_native_engine_is_required_a_compiler_that_does_not_run_is_an_error(
        self, pip_wheel: Callable[..., Path | str]
    ) -> None:
        said = pip_wheel(CXX="false", NCAGATE_REQUIRE_NATIVE="1")
        assert isinstance(said, str)
        assert "CMake configuration failed" in said


def supported() -> list[str]:
    """The instruction sets whose kernels should run here, by what the operating system says of the processor."""
    if platform.machine() != "x86_64":
        return ["baseline"]
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        pytest.skip("this system has no /proc/cpuinfo to compare with")
    flags = set(re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE)[1].split())  # type: ignore[index]
    v4 = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
    needs = {
        "x86_64_v4_bf16": v4 | {"avx512_bf16"},
        "x86_64_v4": v4,
        "x86_64_v3": {"avx2", "fma", "bmi2"},
        "x86_64_v2": {"sse4_2"},
    }
    return [isa for isa, wanted in needs.items() if wanted <= flags]
