from collections.abc import Callable
from typing import Any

import pytest

from model_store.card import model_card
from model_store.manifest import Manifest, TrainingRecord

FIGURES: dict[str, Any] = {
    "outcomes": 36,
    "dice_mean": 0.9071,
    "dice_sd": 0.026,
    "dice_min": 0.8284,
    "nqm_median": 0.04,
    "failures": 5,
    "passes": 31,
    "detected": 4,
    "false_negatives": 1,
    "false_positives": 2,
}
METRICS = {
    "cross_validation": {"thing 1": {"clean": FIGURES, "spike (paper)": FIGURES | {"dice_mean": 0.5}}},
    "validation": {"thing 1": {"clean": FIGURES | {"outcomes": 7}}},
}


@pytest.fixture
def card(make_manifest: Callable[..., Manifest]) -> str:
    record = TrainingRecord(
        data="none",
        seed=42,
        training_scans=("a", "b", "c"),
        folds=(("d", "e"), ("a", "b")),
        config={},
        iterations=5000,
        minutes=8.5,
    )
    return model_card(make_manifest(metrics=METRICS, training=record))


class TestModelCard:
    def test_says_what_it_is_and_what_for(self, card: str, make_manifest: Callable[..., Manifest]) -> None:
        manifest = make_manifest()
        assert card.startswith("# tiny 1.0.0\n")
        for text in (manifest.intended_use, manifest.licence, manifest.attribution, "thing 1 (label 1, 99TEST 1)"):
            assert text in card
        assert f"{manifest.parameters:,} parameters" in card

    def test_says_what_it_was_trained_and_calibrated_on(self, card: str) -> None:
        assert "Trained on 3 scans (5,000 iterations, 8.5 min); 2 scans were seen neither" in card
        assert "Seed 42" in card
        assert "made-up scans: 60 scans, 480 outcomes (clean)" in card

    def test_names_every_figure_of_every_part(self, card: str) -> None:
        assert "| condition | outcomes | Dice | lowest | failed | found | missed | false alarms |" in card
        assert "| clean | 36 | 0.907 ± 0.026 | 0.828 | 5 | 4 | 1 | 2 |" in card
        assert "| spike (paper) | 36 | 0.500 ± 0.026 |" in card
        parts = [card.index(part) for part in ("cross_validation, thing 1:", "validation, thing 1:", "| clean | 7 |")]
        assert parts[0] < parts[2]

    def test_states_the_limits_of_its_verdict(self, card: str) -> None:
        assert "failed below Dice 0.8" in card
        assert "at most 5% of the accepted" in card
        assert "ncagate calibrate" in card

    def test_every_table_row_has_as_many_cells_as_its_head(self, card: str) -> None:
        rows = [line for line in card.splitlines() if line.startswith("|")]
        assert len(rows) == 7
        assert {line.count("|") for line in rows} == {9}
