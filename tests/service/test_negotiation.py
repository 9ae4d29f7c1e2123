from __future__ import annotations

import pytest

from service.errors import Problem
from service.negotiation import Offer, Preference, choose, preference


class TestChoose:
    @pytest.mark.parametrize(
        ("accept", "offer"),
        [
            (None, Offer.JSON),
            ("*/*", Offer.JSON),
            ("application/*", Offer.JSON),
            ("application/gzip", Offer.GZIP),
            ("APPLICATION/X-GZIP", Offer.X_GZIP),
            ("image/png;q=0.5, application/json;q=0.4", Offer.PNG),
            ("image/png;q=0.3, */*;q=0.4", Offer.JSON),
            ("application/dicom, application/json;q=0.9", Offer.DICOM),
            ("application/json;q=0, image/*", Offer.PNG),
            ("text/html, image/png;q=broken, application/json;q=0.1", Offer.JSON),
        ],
    )
    def test_takes_what_is_liked_best(self, accept: str | None, offer: Offer) -> None:
        assert choose(accept) is offer

    @pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "nonsense"])
    def test_refuses_what_nobody_can_serve(self, accept: str) -> None:
        with pytest.raises(Problem, match="application/json"):
            choose(accept)


class TestPreference:
    @pytest.mark.parametrize(
        ("headers", "expected"),
        [
            ([], Preference()),
            (["wait=10"], Preference(wait=10)),
            (["respond-async, wait = 10"], Preference(respond_async=True, wait=10)),
            (["handling=lenient", 'WAIT="7"; foo=bar'], Preference(wait=7)),
            (["wait=-1", "wait=soon"], Preference()),
            (["wait=3, wait=9"], Preference(wait=3)),
        ],
    )
    def test_reads_what_it_knows(self, headers: list[str], expected: Preference) -> None:
        assert preference(headers) == expected

    def test_waits_as_asked_but_never_longer_than_allowed(self) -> None:
        assert Preference(wait=100).seconds(longest=60.0, default=0.0) == 60.0
        assert Preference(wait=5).seconds(longest=60.0, default=60.0) == 5.0
        assert Preference().seconds(longest=60.0, default=60.0) == 60.0
        assert Preference(respond_async=True).seconds(longest=60.0, default=60.0) == 0.0
