from __future__ import annotations

import re

import pytest

from imaging import errors
from imaging.errors import ImagingError

REFUSALS = ImagingError.__subclasses__()


class TestImagingErrors:
    def test_no_two_refusals_share_a_code(self) -> None:
        codes = [refusal.code for refusal in REFUSALS]
        assert len(set(codes)) == len(codes) == 36

    @pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.code)
    def test_class_name_is_the_code_in_camel_case(self, refusal: type[ImagingError]) -> None:
        words = refusal.code.split("_")
        assert refusal.__name__ == "".join(word.capitalize() for word in words) + "Error"
        assert getattr(errors, refusal.__name__) is refusal

    @pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.code)
    def test_code_is_fit_for_a_url_and_says_its_reason(self, refusal: type[ImagingError]) -> None:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)+", refusal.code)
        assert refusal.__doc__
        assert refusal.__doc__ != ImagingError.__doc__
