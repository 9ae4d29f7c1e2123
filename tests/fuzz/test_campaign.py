"""The mutation fuzzer for a bounded number of inputs, and what it stands on: names of inputs, damage, the judge."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fuzz import worker
from tests.fuzz.__main__ import main
from tests.fuzz.campaign import Tally, run_campaign
from tests.fuzz.containers import DamagedError, contents, kind_of
from tests.fuzz.corpus import Scan, load_corpus
from tests.fuzz.inputs import Input, make_input
from tests.fuzz.worker import Outcome, Worker

SEED = 20261125
COUNT = 150
"""Takes about 20 seconds; `make fuzz` tries 10,000."""


@pytest.fixture(scope="module")
def corpus(shared_data: Path) -> list[Scan]:
    return load_corpus(shared_data)


@pytest.fixture(scope="module")
def scans(corpus: Sequence[Scan]) -> dict[str, Scan]:
    return {scan.name: scan for scan in corpus}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Worker]:
    with Worker(tmp_path) as worker:
        yield worker


def sent(scan: Scan, *files: bytes) -> Input:
    """These files, of which a checksum tells that they are not the scan's."""
    return Input(0, 0, files, "by hand", (scan,))


class TestCampaign:
    def test_no_damage_harms_a_worker_or_is_taken_for_a_scan(self, shared_data: Path) -> None:
        tally = run_campaign(shared_data, SEED, range(COUNT))
        assert tally.violations() == []
        assert (tally.tried, tally.deaths, len(tally.pids)) == (COUNT, 0, 1)
        assert tally.ends["accept"] > 0
        assert len(tally.ends) > 8, "damage comes in many kinds"

    def test_a_worker_that_dies_is_counted_and_replaced(self, shared_data: Path) -> None:
        def kill(tally: Tally) -> None:
            (pid, *further) = tally.pids
            if not tally.deaths and not further:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

        tally = run_campaign(shared_data, SEED, range(6), on_outcome=kill)
        assert (tally.tried, tally.deaths, len(tally.pids)) == (6, 1, 2)
        (found,) = tally.violations()
        assert "worker death: exit status -9" in found


class TestInput:
    def test_is_the_same_whenever_it_is_made(self, corpus: Sequence[Scan]) -> None:
        assert [make_input(corpus, 7, number) for number in (5, 3)] == [make_input(corpus, 7, one) for one in (5, 3)]
        assert make_input(corpus, 7, 5).files != make_input(corpus, 8, 5).files

    def test_a_checksum_tells_of_a_container_alone(self, corpus: Sequence[Scan]) -> None:
        plain = {scan.name for scan in corpus if not any(kind_of(one) for one in scan.files)}
        inputs = [make_input(corpus, 7, number) for number in range(300)]
        told = {given.undamaged[0].name for given in inputs if given.undamaged}
        assert len(told) > 5
        assert told.isdisjoint(plain)

    def test_nearly_every_one_is_damaged(self, corpus: Sequence[Scan]) -> None:
        whole = {scan.files for scan in corpus}
        assert sum(make_input(corpus, 7, number).files in whole for number in range(300)) < 10


class TestContents:
    def test_are_those_that_were_packed(self, scans: dict[str, Scan]) -> None:
        (plain,) = scans["plain NIfTI"].files
        for name in ("hippocampus 165", "gzip of two members", "gzip, not compressed", "gzip with every field"):
            assert contents(scans[name].files) == (plain,)
        assert contents(scans["zip of gzip"].files) == contents(scans["zip of NIfTI"].files)
        assert contents(scans["zip of a series"].files) == contents(scans["zip of a series, not compressed"].files)
        assert len(contents(scans["zip of a series"].files)) == 32

    def test_a_field_that_says_nothing_of_them_may_be_damaged(self, scans: dict[str, Scan]) -> None:
        (packed,) = scans["hippocampus 165"].files
        aged = packed[:4] + b"\x01\x02\x03\x04" + packed[8:]
        assert contents([aged]) == contents([packed])

    @pytest.mark.parametrize("name", [b"a/.DS_Store", b"a/PK"])
    def test_damage_to_what_nobody_reads_changes_none_of_them(self, scans: dict[str, Scan], name: bytes) -> None:
        (packed,) = scans["zip with folders and rubbish"].files
        at = packed.index(name, packed.index(b"PK\x01\x02")) - 4  # where its entry is
        assert contents([packed[:at] + b"0000" + packed[at + 4 :]]) == contents([packed])

    @pytest.mark.parametrize("name", ["hippocampus 165", "gzip with every field", "zip of gzip", "zip of a series"])
    def test_a_flipped_bit_is_told_or_changes_none_of_them(self, scans: dict[str, Scan], name: str) -> None:
        (packed,) = scans[name].files
        told = 0
        for at in range(0, len(packed), len(packed) // 97):
            damaged = bytearray(packed)
            damaged[at] ^= 4
            try:
                assert kind_of(bytes(damaged)) is None or contents([bytes(damaged)]) == contents([packed])
            except DamagedError:
                told += 1
        assert told > 80


class TestJudge:
    def test_every_scan_of_the_corpus_is_read(self, corpus: Sequence[Scan], bench: Worker) -> None:
        ends = {scan.name: bench.run(sent(scan, *scan.files)) for scan in corpus}
        assert {name: outcome.wrong for name, outcome in ends.items() if outcome.wrong} == {}
        assert {outcome.end for outcome in ends.values()} <= {"accept", "flag", "image_too_small"}
        assert sum(outcome.end == "accept" for outcome in ends.values()) > 8

    def test_another_scan_than_the_one_that_was_damaged_is_told(self, scans: dict[str, Scan], bench: Worker) -> None:
        outcome = bench.run(sent(scans["hippocampus 001"], *scans["hippocampus 017"].files))
        assert outcome.end == "accept"
        assert outcome.wrong == ("wrong accept: the bytes that were read are not those of the scan",)

    def test_a_job_that_breaks_the_worker_s_program_is_told(
        self, scans: dict[str, Scan], bench: Worker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*arguments: object, **keywords: object) -> None:
            raise KeyError("a defect")

        monkeypatch.setattr("worker.run.segment_scan", broken)
        outcome = bench.run(sent(scans["plain NIfTI"], *scans["plain NIfTI"].files))
        assert outcome.end == "internal_error"
        assert "ended with internal_error" in outcome.wrong

    def test_a_reader_that_takes_too_much_is_told(
        self, scans: dict[str, Scan], bench: Worker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(worker, "PEAK_BYTES", 1)
        outcome = bench.run(sent(scans["plain NIfTI"], *scans["plain NIfTI"].files))
        assert [one.partition(":")[0] for one in outcome.wrong] == ["memory without bound"]
        assert outcome.peak_bytes > 20 * worker.MIB


class TestCommand:
    def test_an_input_is_made_again_by_its_name(
        self, shared_data: Path, corpus: Sequence[Scan], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        chosen = ["--data", str(shared_data), "--out", str(tmp_path)]
        assert main(["--seed", "7", "--only", "5", *chosen]) == 0
        given = make_input(corpus, 7, 5)
        kept = sorted(one for one in (tmp_path / "7-5").iterdir() if one.suffix != ".txt")
        assert tuple(one.read_bytes() for one in kept) == given.files
        assert (tmp_path / "7-5" / "why.txt").read_text().startswith(given.done)
        assert "wrong accepts" in capsys.readouterr().out

    def test_what_must_not_be_is_kept_and_is_an_exit_status(
        self, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def campaign(*arguments: object, **keywords: object) -> Tally:
            tally = Tally()
            tally.add(Outcome(3, "accept", "", ("wrong accept: made up",), 0.1, 1, 1, 1))
            return tally

        monkeypatch.setattr("tests.fuzz.__main__.run_campaign", campaign)
        assert main(["--seed", "7", "--data", str(shared_data), "--out", str(tmp_path)]) == 1
        assert "input 3: wrong accept: made up" in capsys.readouterr().out
        assert (tmp_path / "7-3" / "0000").is_file()
