"""Where webhooks may go: to hosts that the deployment names, at addresses of the internet or such as it names too."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
URL_MAX = 1000
"""Longest URL, in characters."""
DEFAULT_PORTS = {"https": 443, "http": 80}
LOCALHOST = "localhost"

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_URL = re.compile(
    rf"(?P<scheme>https?)://(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>{_LABEL}(?:\.{_LABEL})*))(?::(?P<port>[0-9]{{1,5}}))?"
    r"(?P<path>[/?][!-\"$-\[\]-~]*)?",  # visible ASCII without # and \
    re.ASCII | re.IGNORECASE,
)
_RULE = re.compile(r"(?:\[(?P<v6>[0-9a-f:./]+)\]|(?P<plain>[^\s:\[\]]+))(?::(?P<port>[0-9]{1,5}))?", re.ASCII)

_NOT_PUBLIC = tuple(
    ip_network(one)
    for one in (
        "168.63.129.16/32",  # Azure's metadata, in the public range
        "192.0.0.0/24",  # protocol assignments, Oracle's metadata among them
        "192.88.99.0/24",  # 6to4 relays
        "::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/23", "2002::/16",  # IPv4 addresses within
        "fec0::/10",  # site-local
    )
)  # fmt: skip
"""What is not on the internet itself and yet `is_global` in some version of Python."""


@dataclass(frozen=True)
class WebhookUrl:
    """An absolute URL taken apart, by the one parser that also makes the request: no two can disagree.

    ``host`` is lower-case and without brackets; ``path`` has the query.
    """

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, text: str) -> WebhookUrl:
        """The parts of a URL.

        Raises:
            ValueError: it is too long, none of https (of http to a loopback address), or has a user or a fragment.
        """
        match = _URL.fullmatch(text) if len(text) <= URL_MAX else None
        if match is None:
            raise ValueError(f"not a URL https://HOST/PATH of at most {URL_MAX} characters, without user and fragment")
        scheme, host = match["scheme"].lower(), (match["name"] or match["v6"]).lower()
        if match["v6"] is not None:
            host = str(IPv6Address(host))
        path = match["path"] or "/"
        url = cls(scheme, host, _port(match["port"]) or DEFAULT_PORTS[scheme], path if path[0] == "/" else f"/{path}")
        if scheme == "http" and not url.on_loopback:
            raise ValueError("http is for loopback addresses only: use https")
        return url

    @property
    def address(self) -> Address | None:
        """The host, where it is an address and not a name."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None

    @property
    def on_loopback(self) -> bool:
        """Whether it says that it is this machine's."""
        return self.host == LOCALHOST if self.address is None else self.address.is_loopback

    @property
    def authority(self) -> str:
        """Host and port as a Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True)
class _Rule:
    """A host of the list: a name, `*.` and a name, or a network. ``port`` None is the scheme's own."""

    host: str | IPv4Network | IPv6Network
    port: int | None

    def fits(self, url: WebhookUrl) -> bool:
        return url.port == (self.port or DEFAULT_PORTS[url.scheme]) and self._is_host_of(url)

    def _is_host_of(self, url: WebhookUrl) -> bool:
        if isinstance(self.host, str):
            return url.host.endswith(self.host[1:]) if self.host[0] == "*" else url.host == self.host
        return url.address is not None and url.address in self.host


@dataclass(frozen=True)
class WebhookHosts:
    """The allow-list."""

    rules: tuple[_Rule, ...]

    @classmethod
    def parse(cls, text: str) -> WebhookHosts:
        """A list like `ris.example.org, *.hooks.example:8443, 10.1.0.0/16, [fd00::/8]`.

        Raises:
            ValueError: an entry is none of these, or there is none.
        """
        rules = tuple(_rule(one.strip().lower()) for one in text.split(",") if one.strip())
        if not rules:
            raise ValueError("no host is named")
        return cls(rules)

    def permit(self, url: WebhookUrl) -> bool:
        """Whether an entry names the URL's host, and its port where that is not the scheme's own."""
        return any(rule.fits(url) for rule in self.rules)

    def permit_address(self, url: WebhookUrl, address: Address) -> bool:
        """Whether the address that the host was resolved to may be connected to.

        It is on the internet, or an entry names it or its network; plain http goes to loopback addresses only.
        """
        named = any(not isinstance(rule.host, str) and address in rule.host for rule in self.rules)
        return (named or _public(address)) and (url.scheme == "https" or address.is_loopback)


def checked_hosts(text: str | None) -> str | None:
    """The list as it stands, for settings.

    Raises:
        ValueError: as of `WebhookHosts.parse`.
    """
    if text is not None:
        WebhookHosts.parse(text)
    return text


def checked_url(text: str) -> str:
    """The URL as it stands, for requests.

    Raises:
        ValueError: as of `WebhookUrl.parse`.
    """
    WebhookUrl.parse(text)
    return text


def _rule(text: str) -> _Rule:
    match = _RULE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no host, with a port or without")
    return _Rule(_host(match["v6"] or match["plain"]), _port(match["port"]))


def _host(text: str) -> str | IPv4Network | IPv6Network:
    if _NAME.fullmatch(text) and not re.fullmatch(r"[0-9.]+", text):
        return text
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no name, address or network: {error}") from error


def _port(text: str | None) -> int | None:
    if text is None:
        return None
    if not 1 <= int(text) <= 65535:
        raise ValueError(f"{text} is no port")
    return int(text)


def _public(address: Address) -> bool:
    return address.is_global and not address.is_multicast and not any(address in one for one in _NOT_PUBLIC)
