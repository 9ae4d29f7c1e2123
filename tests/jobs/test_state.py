from __future__ import annotations

from jobs.state import TERMINAL, TRANSITIONS, JobState


class TestTransitions:
    def test_every_state_is_named(self) -> None:
        assert set(TRANSITIONS) == set(JobState)

    def test_a_final_state_leads_nowhere_and_every_other_somewhere(self) -> None:
        assert {state for state, after in TRANSITIONS.items() if not after} == TERMINAL

    def test_a_queued_job_never_succeeds_without_running(self) -> None:
        assert JobState.SUCCEEDED not in TRANSITIONS[JobState.QUEUED]
