"""The named points at which a process can be held."""

from __future__ import annotations

STAGES = ("read", "prepare", "segment", "judge", "write")
WORKER_POINTS = ("delivered", "claimed", *STAGES, "committed", "succeeded")
"""A message came; its row is claimed; each stage begins; the files are there; the row is final, the message is not."""
SHADOW = "shadow"
"""A candidate is about to be tried on a job that is done, or there is none to be tried on."""
AHEAD = "ahead"
"""The next job of a batch is claimed and its scan read, while the one before it is in the engine or just over."""
GATEWAY_POINTS = ("stored", "queued")
"""The upload is in place, without a row; the row is there, unanswered."""
SECOND = "+"
"""Behind a point's name: the order for one more process."""
