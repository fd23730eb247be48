"""Whether the Hugging Face Hub can be reached, and what its client raises when it cannot."""

import socket
import urllib.request
from typing import cast
from urllib.parse import urlsplit

from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE
from huggingface_hub.errors import HfHubHTTPError

FAILURES = cast(tuple[type[Exception], ...], (OSError, *HfHubHTTPError.__bases__))
"""Of a download; among them the errors of the client's HTTP library, which differs between its versions."""


def hub_reachable() -> bool:
    """Whether the Hub takes connections: its client would retry for a minute. A proxy hides that: yes."""
    if HF_HUB_OFFLINE:
        return False
    if urllib.request.getproxies():
        return True
    hub = urlsplit(ENDPOINT)
    try:
        socket.create_connection((hub.hostname or "", hub.port or 443), timeout=5).close()
    except OSError:
        return False
    return True
