"""Where a result comes from: version, machine and time, as every results file and artifact records them."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

__all__ = ["cores", "provenance", "version_of"]

_PACKAGES = ("hashlgn", "numpy", "scipy", "faiss-cpu", "torch")


def provenance(**more: Any) -> dict[str, Any]:
    """Version of the package, time in UTC, machine and package versions, followed by what the caller adds.

    Nothing is imported for it, so a server that records where an answer comes from does not load PyTorch.
    """
    versions = {name: version for name in _PACKAGES if (version := version_of(name)) is not None}
    return {
        "version": versions.pop("hashlgn", "unknown"),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": cores(),
            "memory_bytes": _memory(),
            "python": platform.python_version(),
            "packages": versions,
        },
        **more,
    }


def version_of(package: str) -> str | None:
    """The version of an installed package; None where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cores() -> int:
    """Processor threads that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on this system
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
