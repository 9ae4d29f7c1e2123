"""`make audit`: known vulnerabilities of what is pinned, secrets among the project's files, and a bill of materials.

Exit code 1 where something was found; 75 (EX_TEMPFAIL) where nothing was, but vulnerabilities could not be asked for.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TOOLS = Path(sys.executable).parent
KNOWN = ROOT / ".ci" / "not-secrets.txt"
SBOM = ROOT / "dist" / "sbom.cdx.json"
CANNOT_ASK = 75


def main() -> None:
    """Run all three; say what each found."""
    secrets = _secrets()
    _bill_of_materials()
    found, asked = _vulnerabilities()
    sys.exit(1 if secrets or found else 0 if asked else CANNOT_ASK)


def _vulnerabilities() -> tuple[int, bool]:
    """How many were found, and whether there was an answer for at least one package."""
    done = _run("pip-audit", "--requirement", "constraints.txt", "--no-deps", "--disable-pip", "--format", "json")
    answers: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"] if done.stdout else []
    asked = [one for one in answers if "skip_reason" not in one]
    found = [(one, vulnerability) for one in asked for vulnerability in one["vulns"]]
    for one, vulnerability in found:
        print(f"  {one['name']} {one['version']}: {vulnerability['id']}, mended in {vulnerability['fix_versions']}")
    if not asked:
        print("vulnerabilities: NOT ASKED FOR, no service answers here")
    else:
        unknown = [one["name"] for one in answers if "skip_reason" in one]
        print(f"vulnerabilities: {len(found)} in {len(asked)} packages; not known to the service: {unknown or 'none'}")
    return len(found), bool(asked)


def _secrets() -> int:
    """How many strings look like secrets and are not known to be none."""
    files = _run("git", "ls-files", tool=False).stdout.split("\n")
    done = _run("detect-secrets", "scan", *filter(None, files))
    known = {line.split()[-1] for line in KNOWN.read_text(encoding="utf-8").splitlines()}
    found = [(file, one) for file, many in json.loads(done.stdout)["results"].items() for one in many]
    new = [(file, one) for file, one in found if one["hashed_secret"] not in known]
    for file, one in new:
        print(f"  {file}:{one['line_number']}: {one['type']}; where it is none: {file} {one['hashed_secret']}")
    print(f"secrets: {len(new)} in {len(files) - 1} files; strings known to be none: {len(found) - len(new)}")
    return len(new)


def _bill_of_materials() -> None:
    """Write what is installed as CycloneDX."""
    SBOM.parent.mkdir(exist_ok=True)
    options = ("--pyproject", "pyproject.toml", "--output-reproducible", "--validate", "-o", str(SBOM))
    _run("cyclonedx-py", "environment", ".venv/bin/python", *options, check=True)
    print(
        f"bill of materials: {len(json.loads(SBOM.read_text())['components'])} components in {SBOM.relative_to(ROOT)}"
    )


def _run(name: str, *arguments: str, tool: bool = True, check: bool = False) -> subprocess.CompletedProcess[str]:
    command = [str(TOOLS / name) if tool else name, *arguments]
    return subprocess.run(command, cwd=ROOT, check=check, capture_output=True, text=True)  # noqa: S603  # ours


if __name__ == "__main__":
    main()
