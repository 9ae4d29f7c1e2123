"""`make chaos`: faults into the whole stack, and a table of what became of the jobs.

python -m tests.chaos --schedules 200 --seed 0      # the named faults, then random schedules
python -m tests.chaos --schedules 1 --seed 17       # the schedule of that seed alone
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def main() -> int:
    """Run the suite with pytest; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Faults into the whole stack.")
    parser.add_argument("--schedules", type=int, default=200, help="how many random schedules (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first one; the others follow (default: 0)")
    parser.add_argument("--all", action="store_true", help="the named faults as well")
    chosen = parser.parse_args()
    os.environ |= {"CHAOS_SCHEDULES": str(chosen.schedules), "CHAOS_SEED": str(chosen.seed)}
    where = HERE if chosen.all else HERE / "test_schedules.py"
    return int(pytest.main([str(where), "--tb=short", "-o", "console_output_style=count", "-v"]))


if __name__ == "__main__":
    sys.exit(main())
