"""Data by name: a path, or a published data set."""

from __future__ import annotations

import os
from pathlib import Path

from hashlgn.data.download import DATASETS, cached, download

__all__ = ["located"]


def located(source: str | Path) -> Path:
    """A path as it is; the name of a published data set as its folder in ``HASHLGN_DATA``, or in the cache.

    A data set that is in neither is downloaded. A path that is there goes before a name.

    Raises:
        DownloadError: it could not be fetched.
    """
    path, name, held = Path(source), str(source), os.environ.get("HASHLGN_DATA")
    if path.exists() or name not in DATASETS:
        return path
    if held and (Path(held) / name).is_dir():
        return Path(held) / name
    return cached(name) or download(name)
