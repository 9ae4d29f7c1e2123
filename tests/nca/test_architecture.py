import pytest

from nca.architecture import Architecture, Level, default_steps
from nca.errors import ImageTooSmallError, InvalidArchitectureError
from nca.model import M3dNca


class TestParameterCount:
    @pytest.mark.parametrize(
        ("kernels", "count"),
        [((7,), 8_768), ((3,), 3_712), ((7, 3), 12_480), ((7, 3, 3), 16_192), ((5, 3, 3, 3), 16_416)],
    )
    def test_is_that_of_the_paper_and_of_the_torch_model(self, kernels: tuple[int, ...], count: int) -> None:
        *coarse, finest = kernels
        levels = (*(Level(k, 1, (2, 2, 2)) for k in coarse), Level(finest, 1))
        architecture = Architecture(levels)
        assert architecture.parameter_count() == count
        assert sum(p.numel() for p in M3dNca(architecture).parameters()) == count


class TestShapes:
    def test_every_level_rounds_up(self) -> None:
        architecture = Architecture((Level(3, 1, (2, 2, 1)), Level(3, 1, (3, 2, 1)), Level(3, 1)))
        assert architecture.shapes((35, 50, 7)) == ((6, 13, 7), (12, 25, 7), (35, 50, 7))

    def test_refuses_a_level_that_its_kernel_cannot_reflect(self) -> None:
        architecture = Architecture((Level(7, 1, (2, 2, 2)), Level(3, 1)))
        assert architecture.shapes((7, 7, 7))[0] == (4, 4, 4)
        with pytest.raises(ImageTooSmallError, match="longer than 3"):
            architecture.shapes((7, 7, 6))


class TestValidation:
    @pytest.mark.parametrize(
        "levels",
        [(), (Level(4, 1),), (Level(3, 0),), (Level(3, 1, (2, 2, 2)),), (Level(1, 1),)],
        ids=["none", "even kernel", "no steps", "finest is scaled", "kernel of one"],
    )
    def test_refuses_levels_that_make_no_cascade(self, levels: tuple[Level, ...]) -> None:
        with pytest.raises(InvalidArchitectureError):
            Architecture(levels)

    def test_refuses_more_inputs_and_outputs_than_channels(self) -> None:
        with pytest.raises(InvalidArchitectureError):
            Architecture((Level(3, 1),), channels=2, inputs=1, outputs=2)

    @pytest.mark.parametrize("rate", [0.0, 1.1])
    def test_refuses_an_impossible_fire_rate(self, rate: float) -> None:
        with pytest.raises(InvalidArchitectureError):
            Architecture((Level(3, 1),), fire_rate=rate)


class TestDefaultSteps:
    def test_lets_information_cross_the_longest_axis(self) -> None:
        assert default_steps((18, 25, 18), 7) == 9
        assert default_steps((35, 50, 35), 3) == 50
