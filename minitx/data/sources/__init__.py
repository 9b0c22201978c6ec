"""Where examples come from: the registry of all values of `data.source`.

An embedded set is one more entry of `embedded.EMBEDDED`; a set of the hub or a local folder needs no code, only a file
in conf/data.
"""

from minitx.data.sources.embedded import EMBEDDED
from minitx.data.sources.files import Files
from minitx.data.sources.generated import Generated
from minitx.data.sources.hub import HubOrFolder
from minitx.data.sources.source import SPLITS, Corpus, Examples, Source, stratified_order

SOURCES: dict[str, Source] = {"dataset": HubOrFolder(), "files": Files(), "probe": Generated(), **EMBEDDED}

__all__ = ["SOURCES", "SPLITS", "Corpus", "Examples", "Source", "stratified_order"]
