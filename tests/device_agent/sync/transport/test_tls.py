"""HTTPS with certificates of a made-up authority, redirects off it, and proxies in between (C7, C12)."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from edgekit.errors import Unreachable
from tests.device_agent.sync.transport.opening import fetched, opened
from tests.hostile_http import Hostile, cut, no_ranges, redirected
from tests.worlds import World

DATA = bytes(range(256)) * 2_000
FILES = {"packs/x": DATA, "metadata/timestamp.json": b"{}"}

fresh_and_resumed = pytest.mark.parametrize("start", [0, 123_457], ids=["fresh", "resumed"])


def issued(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """One that this machine trusts, as an owner would say it: in SSL_CERT_FILE."""
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    return made


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[Hostile]:
    with Hostile(FILES, tls=issued(authority, "127.0.0.1", "models.invalid")) as hostile:
        yield hostile


@fresh_and_resumed
def test_c16_https_with_an_authority_of_ones_own(server: Hostile, start: int) -> None:
    server.then(cut(50_000))
    assert fetched(opened(server.url), "packs/x", DATA, start=start) == DATA[start:]


@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_a_certificate_that_is_not_right_is_not_accepted(authority: trustme.CA, wrong: str) -> None:
    by = trustme.CA() if wrong == "authority" else authority
    with Hostile(FILES, tls=issued(by, "127.0.0.1" if wrong == "authority" else "other.invalid")) as server:
        with pytest.raises(Unreachable, match="certificate is not accepted"):
            opened(server.url).read("metadata/timestamp.json", limit=9)
        assert server.asked == []


def test_https_where_nobody_speaks_it_is_one_clear_error() -> None:
    with Hostile(FILES) as server, pytest.raises(Unreachable, match="no TLS"):
        opened(server.url.replace("http:", "https:")).read("metadata/timestamp.json", limit=9)


@fresh_and_resumed
def test_c07_no_redirect_leads_from_https_to_http(server: Hostile, start: int) -> None:
    with Hostile(FILES) as plain:
        server.always(redirected(f"{plain.url}/{{path}}"))
        source = opened(server.url, plain.url)
        assert fetched(source, "packs/x", DATA, start=start) == DATA[start:], "who is named as a mirror may be http"
        with pytest.raises(Unreachable, match="from https to http"):
            fetched(opened(server.url), "packs/x", DATA, start=start)
        assert len(plain.asked) == 1


def test_c07_a_redirect_from_http_to_https_is_followed(server: Hostile) -> None:
    with Hostile(FILES) as plain:
        plain.always(redirected(f"{server.url}/{{path}}"))
        assert opened(plain.url).read("metadata/timestamp.json", limit=9) == b"{}"


# --- C12 --------------------------------------------------------------------------------------


@fresh_and_resumed
def test_c12_where_a_proxy_is_needed_it_is_used(start: int) -> None:
    with Hostile(FILES) as proxy:
        environment = {"http_proxy": proxy.url.replace("//", "//me:secret@")}
        source = opened("http://models.invalid", environment=environment)
        assert fetched(source, "packs/x", DATA, start=start) == DATA[start:]
        assert [asked.url for asked in proxy.asked] == ["http://models.invalid/packs/x"]
        assert proxy.asked[0].headers["proxy-authorization"] == "Basic bWU6c2VjcmV0"


@fresh_and_resumed
def test_c12_a_proxy_that_strips_ranges_costs_bytes_and_nothing_else(start: int) -> None:
    with Hostile(FILES) as proxy:
        proxy.always(no_ranges())
        source = opened("http://models.invalid", environment={"http_proxy": proxy.url})
        assert fetched(source, "packs/x", DATA, start=start, length=10) == DATA[start : start + 10]


@fresh_and_resumed
def test_c12_https_goes_through_a_tunnel_that_sees_no_secret(server: Hostile, start: int) -> None:
    with Hostile({}, tunnels={"models.invalid:443": ("127.0.0.1", server.port)}) as proxy:
        source = opened("https://me:secret@models.invalid", environment={"https_proxy": proxy.url})
        server.then(cut(40_000))
        assert fetched(source, "packs/x", DATA, start=start) == DATA[start:]
        assert {asked.url for asked in proxy.asked} == {"models.invalid:443"}
        assert not any("authorization" in asked.headers for asked in proxy.asked)
        assert server.asked[0].headers["authorization"].startswith("Basic ")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_c12_a_proxy_that_says_no_or_is_gone_is_out_of_reach(scheme: str) -> None:
    with Hostile({}) as proxy:
        source = opened(f"{scheme}://models.invalid", environment={f"{scheme}_proxy": proxy.url})
        with pytest.raises(Unreachable):
            source.read("metadata/timestamp.json", limit=9)
    source = opened(f"{scheme}://models.invalid", environment={f"{scheme}_proxy": proxy.url})
    with pytest.raises(Unreachable, match=r"proxy|answers"):
        source.read("metadata/timestamp.json", limit=9)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://127.0.0.1:99999999", "http://["])
def test_c12_a_proxy_that_cannot_be_used_is_said(proxy: str) -> None:
    world = World()
    source = opened("http://models.invalid", environment={"http_proxy": proxy}, world=world)
    with pytest.raises(Unreachable, match="proxy"):
        source.read("metadata/timestamp.json", limit=9)
