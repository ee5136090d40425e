"""Where data lies: a path, or the name of a published data set."""

from __future__ import annotations

import os
from pathlib import Path

from hashlgn.errors import DataError
from hashlgn.utils.storage import reason

__all__ = ["resolved"]


def resolved(source: str | Path) -> Path:
    """The path that ``source`` names.

    A path that exists is taken as it is. Otherwise the name of a published data set (a key of ``download.DATASETS``,
    ``"ml-1m"``) is looked for in the folder that the environment variable ``HASHLGN_DATA`` names, then in the cache,
    and then downloaded.

    Raises:
        DataError: there is no such path, and it is not the name of a data set.
        DownloadError: the data set cannot be downloaded.
    """
    from hashlgn.data.download import DATASETS, cached, download

    try:
        path = Path(source).expanduser()
        if path.exists():
            return path
    except (OSError, ValueError, RuntimeError) as error:  # too long, a zero byte, no home folder
        raise DataError(f"{str(source)[:80]!r}: cannot be read ({reason(error)})") from error
    name = str(source)
    if name not in DATASETS:
        known = ", ".join(DATASETS)
        raise DataError(f"{path}: no such file or folder (published data sets that have a name: {known})")
    folder = os.environ.get("HASHLGN_DATA")
    held = Path(folder).expanduser() / name if folder else None
    if held is not None and held.exists():
        return held
    return cached(name) or download(name)
