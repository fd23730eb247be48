"""Whether the Hugging Face Hub can be reached, what its client raises when it cannot, and which names it allows."""

import re
import socket
import urllib.request
from typing import cast
from urllib.parse import urlsplit

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE
from huggingface_hub.errors import HfHubHTTPError

FAILURES = cast(tuple[type[Exception], ...], (OSError, *HfHubHTTPError.__bases__))
"""Of a download; among them the errors of the client's HTTP library, which differs between its versions."""
LONGEST_NAME = 96
"""Characters of a repository's name, its owner's included."""
PROXIED = {"http", "https", "all"}
"""Kinds of address that a proxy is for; NO_PROXY, which says where none is, is kept beside them."""
_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"


def hub_address() -> str:
    """Where the Hub is: HF_ENDPOINT, or huggingface.co."""
    return ENDPOINT


def hub_reachable() -> bool:
    """Whether the Hub takes connections: its client would retry for a minute. A proxy hides that: yes."""
    if HF_HUB_OFFLINE:
        return False
    if not PROXIED.isdisjoint(urllib.request.getproxies()):
        return True
    try:
        socket.create_connection(host_and_port(ENDPOINT), timeout=5).close()
    except OSError:
        return False
    return True


def host_and_port(address: str) -> tuple[str, int]:
    """Where the server of a web address listens; without a port in it at the one of its scheme."""
    server = urlsplit(address)
    return server.hostname or "", server.port or (80 if server.scheme == "http" else 443)


def is_known(repository: str, file: str) -> bool:
    """Whether the cache has a file of a repository, or knows that there is none."""
    return try_to_load_from_cache(repository, file) is not None


def is_repository(name: str) -> bool:
    """Whether a repository of the Hub can have this name: ``owner/name``, or ``name`` alone, as the oldest have it."""
    apart = "--" not in name and ".." not in name and not name.endswith(".git")
    return len(name) <= LONGEST_NAME and apart and re.fullmatch(f"(?:{_NAME}/)?{_NAME}", name) is not None
