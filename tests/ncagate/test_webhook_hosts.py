"""Which URLs and addresses webhooks may go to."""

from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ncagate.settings import Settings
from ncagate.webhook_hosts import URL_MAX, WebhookHosts, WebhookUrl

URL = WebhookUrl.parse("https://ris.example.org/hook")


class TestUrl:
    @pytest.mark.parametrize(
        ("text", "parts", "authority"),
        [
            ("https://ris.example.org", ("https", "ris.example.org", 443, "/"), "ris.example.org"),
            ("HTTPS://RIS.Example.org:443/A?b=C", ("https", "ris.example.org", 443, "/A?b=C"), "ris.example.org"),
            ("https://ris:8443?x=%23", ("https", "ris", 8443, "/?x=%23"), "ris:8443"),
            ("https://[2001:DB8:0::1]:8443/", ("https", "2001:db8::1", 8443, "/"), "[2001:db8::1]:8443"),
            ("http://127.0.0.1:9000/", ("http", "127.0.0.1", 9000, "/"), "127.0.0.1:9000"),
            ("http://[::1]/", ("http", "::1", 80, "/"), "[::1]"),
            ("http://localhost/a", ("http", "localhost", 80, "/a"), "localhost"),
        ],
    )
    def test_is_taken_apart(self, text: str, parts: tuple[Any, ...], authority: str) -> None:
        url = WebhookUrl.parse(text)
        assert (url.scheme, url.host, url.port, url.path) == parts
        assert url.authority == authority

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "ris.example.org/hook",
            "ftp://ris.example.org/",
            "https:///hook",
            "https://user@ris.example.org/",
            "https://user:secret@ris.example.org/",
            "https://ris.example.org\\@evil.example/",
            "https://ris.example.org/#part",
            "https://ris.example.org/a b",
            "https://ris.example.org/\r\nX: y",
            "https://ris.example.org/ä",
            "https://rïs.example.org/",
            "https://ris..example.org/",
            "https://ris.example.org./",
            "https://-ris.example.org/",
            "https://ris.example.org:0/",
            "https://ris.example.org:65536/",
            "https://ris.example.org:/",
            "https://[fe80::1%eth0]/",
            "https://[10.0.0.1]/",
            "https://[::1/",
            f"https://{'a' * 64}.example/",
            f"https://ris.example.org/{'a' * URL_MAX}",
            "http://ris.example.org/",
            "http://10.0.0.1/",
            "http://localhost.example.org/",
        ],
    )
    def test_of_another_kind_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"."):
            WebhookUrl.parse(text)

    @given(st.text("htpsHTP:/@[]?#\\.%&=a1-_ \t\n0\u0661\u2488", max_size=24))
    def test_that_is_taken_means_the_same_to_other_parsers(self, rest: str) -> None:
        try:
            url = WebhookUrl.parse(f"https://{rest}")
        except ValueError:
            return
        split, other = urlsplit(f"https://{rest}"), httpx.URL(f"https://{rest}")
        assert (split.username, split.fragment) == (None, "")
        for host, port in ((split.hostname, split.port), (other.host, other.port)):
            assert (host, port or 443) == (url.host, url.port)


class TestHosts:
    @pytest.mark.parametrize(
        ("hosts", "url", "permitted"),
        [
            ("ris.example.org", "https://ris.example.org/", True),
            ("RIS.example.org , other", "https://ris.EXAMPLE.org/", True),
            ("ris.example.org", "https://ris.example.org:8443/", False),
            ("ris.example.org:8443", "https://ris.example.org:8443/", True),
            ("ris.example.org:8443", "https://ris.example.org/", False),
            ("ris.example.org", "https://evil-ris.example.org/", False),
            ("ris.example.org", "https://ris.example.org.evil.example/", False),
            ("*.example.org", "https://a.b.example.org/", True),
            ("*.example.org", "https://example.org/", False),
            ("*.example.org", "https://evilexample.org/", False),
            ("10.0.0.1", "https://10.0.0.1/", True),
            ("10.0.0.1", "https://10.0.0.2/", False),
            ("10.0.0.0/8:8443", "https://10.9.9.9:8443/", True),
            ("10.0.0.0/8", "https://ris.example.org/", False),
            ("[fd00::1]:8443", "https://[fd00::0:1]:8443/", True),
            ("[fd00::/8]", "https://[fd12::1]/", True),
            ("[fd00::/8]", "https://10.0.0.1/", False),
            ("127.0.0.1", "http://127.0.0.1/", True),
            ("localhost:9000", "http://localhost:9000/", True),
        ],
    )
    def test_permit_what_an_entry_names(self, hosts: str, url: str, permitted: bool) -> None:
        assert WebhookHosts.parse(hosts).permit(WebhookUrl.parse(url)) is permitted

    @pytest.mark.parametrize(
        "text",
        ["", " , ", "*", "*.*.org", "a.*", "https://ris.example.org", "ris/hook", "10.0.0.1/8", "10.0.0", "::1",
         "ris:0", "ris:99999", "[ris]", "user@ris", "ris:"],
    )  # fmt: skip
    def test_of_another_kind_are_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"."):
            WebhookHosts.parse(text)


class TestAddresses:
    @pytest.mark.parametrize("address", ["93.184.215.14", "8.8.8.8", "2606:2800:21f:cb07::1"])
    def test_on_the_internet_are_permitted(self, address: str) -> None:
        assert WebhookHosts.parse("ris.example.org").permit_address(URL, ip_address(address))

    @pytest.mark.parametrize(
        "address",
        [
            "10.0.0.1", "172.16.0.1", "192.168.1.1", "fd00::1",  # private
            "127.0.0.1", "127.9.9.9", "::1",
            "169.254.169.254", "fe80::1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254",
            "0.0.0.0", "0.1.2.3", "::", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "192.88.99.1",
            "100.64.0.1", "224.0.0.1", "239.1.1.1", "ff02::1", "ff0e::1", "fec0::1",
            "::ffff:8.8.8.8", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::1",
            "2002:7f00:1::1", "2001:0:7f00:1::1", "2001:db8::1",
        ],
    )  # fmt: skip
    def test_elsewhere_are_refused_unless_they_are_named(self, address: str) -> None:
        found = ip_address(address)
        entry = f"[{address}]" if found.version == 6 else address
        assert not WebhookHosts.parse("ris.example.org").permit_address(URL, found)
        assert WebhookHosts.parse(f"ris.example.org,{entry}").permit_address(URL, found)

    def test_a_network_names_its_addresses_at_any_port(self) -> None:
        hosts = WebhookHosts.parse("ris.example.org, 10.1.0.0/16:9000")
        assert hosts.permit_address(URL, ip_address("10.1.2.3"))
        assert not hosts.permit_address(URL, ip_address("10.2.0.1"))

    def test_plain_http_stays_on_this_machine(self) -> None:
        hosts = WebhookHosts.parse("localhost,127.0.0.1,10.0.0.1")
        url = WebhookUrl.parse("http://localhost/")
        assert hosts.permit_address(url, ip_address("127.0.0.1"))
        assert not hosts.permit_address(url, ip_address("10.0.0.1"))
        assert not hosts.permit_address(url, ip_address("8.8.8.8"))


class TestSettings:
    def test_hosts_that_cannot_be_are_refused_at_the_start(self, tmp_path: Path) -> None:
        with pytest.raises(ValidationError, match="no host is named") as error:
            Settings(webhook_hosts=",", webhook_secret_file=tmp_path)
        assert error.value.errors()[0]["loc"] == ("webhook_hosts",)

    def test_hosts_need_a_secret(self) -> None:
        with pytest.raises(ValidationError, match="what is sent is signed") as error:
            Settings(webhook_hosts="ris.example.org")
        assert error.value.errors()[0]["loc"] == ("webhook_secret_file",)
        assert Settings().webhook_secret_file is None
