"""Whether the Hub can be reached: asked where it listens, and only left to its client where a proxy hides that."""

import socket
from collections.abc import Iterator

import pytest

from multitune.storage.hub import host_and_port, hub_reachable

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://huggingface.co", ("huggingface.co", 443)),
        ("http://mirror.example", ("mirror.example", 80)),
        ("http://mirror.example:8080/hub", ("mirror.example", 8080)),
        ("https://[::1]:9", ("::1", 9)),
    ],
)
def test_where_the_hub_listens(address: str, expected: tuple[str, int]) -> None:
    assert host_and_port(address) == expected


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Hub at a port where nobody listens, and no proxy."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        monkeypatch.setattr("multitune.storage.hub.ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setattr("multitune.storage.hub.HF_HUB_OFFLINE", False)
        for name in (*PROXIES, *map(str.upper, PROXIES)):
            monkeypatch.delenv(name, raising=False)
        yield


@pytest.mark.usefixtures("nowhere")
def test_addresses_without_a_proxy_are_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not hub_reachable()
    monkeypatch.setenv("NO_PROXY", "localhost,10.0.0.0/8")
    assert not hub_reachable()
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert hub_reachable()
