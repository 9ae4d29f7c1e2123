"""The file of routes and archives: what it may say, and what is refused when it is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import pacs.config
from pacs.config import CStoreDestination, PacsConfig, StowDestination, load_pacs
from pacs.errors import InvalidPacsConfigError

ROUTE = '[[route]]\nname = "a"\nmodel = "tiny"\n'
STOW = '[[destination]]\nkind = "stow"\nname = "archive"\nurl = "https://pacs.example/dicom-web"\n'
CSTORE = '[[destination]]\nkind = "cstore"\nname = "archive"\nhost = "pacs"\nport = 104\nae_title = "PACS"\n'
LISTEN = "[listen]\n"
Load = Callable[[str], PacsConfig]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str) -> PacsConfig:
        path = tmp_path / "pacs.toml"
        path.write_text(text)
        return load_pacs(path)

    return load


class TestLoadPacs:
    def test_without_a_file_nothing_is_routed_and_nothing_sent(self) -> None:
        config = load_pacs(None)
        assert (config.route, config.destination, config.listen) == ((), (), None)

    def test_the_example_of_the_documentation_loads(self, load: Load) -> None:
        config = load((pacs.config.__doc__ or "").partition("\n\n")[2])
        assert config.listen is not None
        assert (config.quiet_s, config.listen.calling) == (10.0, ("PACS",))
        assert [(one.name, one.destinations) for one in config.route] == [("hippocampus", ("archive",))]
        (destination,) = config.destination
        assert isinstance(destination, StowDestination)
        assert destination.password_file == Path("/run/secrets/pacs")

    def test_what_is_left_out_has_its_default(self, load: Load) -> None:
        config = load(ROUTE + CSTORE + LISTEN)
        (destination,) = config.destination
        assert isinstance(destination, CStoreDestination)
        assert (destination.calling, destination.flagged, destination.tls) == ("NCAGATE", True, None)
        assert config.listen is not None
        assert (config.listen.ae_title, config.listen.port, config.listen.calling) == ("NCAGATE", 11112, ())
        assert config.route[0].modality == ".*"

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidPacsConfigError, match=r"routes\.toml: "):
            load_pacs(tmp_path / "routes.toml")

    def test_what_is_no_text_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "pacs.toml"
        path.write_bytes(b"\xff\xfe")
        with pytest.raises(InvalidPacsConfigError, match=r"pacs\.toml"):
            load_pacs(path)

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("quiet_s = ", "pacs.toml"),
            ("quiet_s = 0", "quiet_s"),
            ("quiet_s = inf", "quiet_s"),
            ("colour = 'red'", "colour"),
            (ROUTE + 'destinations = ["archive"]', "route a names no destination of this file: archive"),
            (ROUTE + ROUTE, r"two sections \[\[route\]\] are called a"),
            (STOW + CSTORE, r"two sections \[\[destination\]\] are called archive"),
            (ROUTE + 'modality = "("', "route.0.modality: .*not a regular expression"),
            (ROUTE + 'sender = "*"', "route.0.sender"),
            (ROUTE + 'colour = "red"', "route.0.colour"),
            (ROUTE + "members = 0", "route.0.members"),
            (ROUTE + "min_dice = 1.0", "route.0.min_dice"),
            (ROUTE + 'rule = "hope"', "route.0.rule"),
            ('[[route]]\nname = "a"', "route.0.model"),
            ('[[route]]\nname = "a b"\nmodel = "tiny"', "route.0.name"),
            (STOW.replace("https", "ftp"), "destination.0.stow.url"),
            (STOW.replace("stow", "email"), "destination.0"),
            (STOW + 'username = "me"', "username and password_file go together"),
            (STOW + 'password_file = "p"', "username and password_file go together"),
            (STOW + 'username = "me"\npassword_file = "p"\ntoken_file = "t"', "either a password or a token"),
            (STOW + 'tls = { key = "k.pem" }', "a key goes with a certificate"),
            (STOW + "timeout_s = 0", "destination.0.stow.timeout_s"),
            (CSTORE.replace("104", "0"), "destination.0.cstore.port"),
            (CSTORE.replace('"PACS"', '"A TITLE THAT IS TOO LONG"'), "destination.0.cstore.ae_title"),
            (CSTORE.replace('"PACS"', "'A\\B'"), "destination.0.cstore.ae_title"),
            (LISTEN + "port = 65536", "listen.port"),
            (LISTEN + "associations = 0", "listen.associations"),
            (LISTEN + 'calling = [""]', "listen.calling.0"),
        ],
    )
    def test_what_cannot_be_is_refused_with_its_place(self, load: Load, text: str, told: str) -> None:
        with pytest.raises(InvalidPacsConfigError, match=told):
            load(text)
