"""What a person types: the options that several commands have, and the lists and columns in them."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hashlgn.errors import ArgumentError, DataError, need, shown
from hashlgn.utils.console import say

if TYPE_CHECKING:
    from hashlgn.data import Interactions

_ROLES = ("user", "item", "rating", "time", "weight", "title", "genres")
_COLUMN = re.compile(rf"\b({'|'.join(_ROLES)})=(?=\W|$)")
_OPTION = re.compile(
    r"\b(min_rating|on_missing|on_bad|encoding|decimal|delimiter|id_type|format|part|k_core|items)=('[^']*'|[\w.]+)?"
)

DATA = typer.Argument(metavar="DATA", help="File or folder of interactions, or a published data set, such as ml-1m.")
Data = Annotated[str, DATA]
# The options of read_interactions, on every command that reads: name → type, description
_READING: dict[str, tuple[type, str]] = {
    "format": (str, "lightgcn, movielens, recbole, csv or parquet.  [default: detected]"),
    "part": (str, "Of data published as two files: train, test or all."),
    "columns": (
        str,
        "Names or positions of columns, as user=who,item=what,rating=2,time=when,weight=w,title=t,genres=g.",
    ),
    "items": (str, "File of titles and genres: columns item, title, genres."),
    "min_rating": (
        float,
        "Leave out interactions rated lower; 0 keeps all.  [default: 4 for ratings of up to 5 stars]",
    ),
    "duplicates": (str, "Which row of a repeated pair counts: first or last.  [default: first]"),
    "delimiter": (str, "Delimiter of text.  [default: detected]"),
    "encoding": (str, "Encoding of text, as latin-1.  [default: detected]"),
    "decimal": (str, "Decimal mark of numbers in text.  [default: .]"),
    "on_bad": (str, "What to do about broken rows: raise or skip.  [default: raise]"),
    "on_missing": (str, "What to do about missing values: raise or skip.  [default: raise]"),
    "id_type": (str, "Type of all ids: auto, int or str.  [default: auto]"),
    "k_core": (int, "Keep users and items with this many interactions."),
}
Seed = Annotated[int, typer.Option(help="Random seed: the same seed gives the same result.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Processor threads; all by default.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.", callback=lambda value: checked_device(value))]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors alone.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the results to this file.")]
Preset = Annotated[
    str | None, typer.Option(help="paper: the paper's own recipe; hashgnn: HashGNN. Other options override it.")
]
Config = Annotated[Path | None, typer.Option(help="TOML file with [model], [train] and [student].")]
Set = Annotated[list[str], typer.Option("--set", help="Any setting, as student.epochs=10; may be repeated.")]


def checked_device(value: str) -> str:
    """A device as typed, refused before anything is read where it is none of this machine.

    Raises:
        ArgumentError: there is no such device.
    """
    if value not in ("auto", "cpu"):
        need("torch", "train", "training")
        from hashlgn.training.resolve import resolve_device

        resolve_device(value)
    return value


def names(text: str, by: str = ",") -> list[str]:
    """Names as typed, separated by commas."""
    return [part.strip() for part in text.split(by) if part.strip()]


def numbers(name: str, text: str, kind: type) -> list[Any]:
    """Numbers separated by commas, as typed for option ``name``.

    Raises:
        ArgumentError: one is no number of that kind.
    """
    try:
        return [kind(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ArgumentError(f"{name} must be numbers separated by commas (got {text!r})") from None


def column_options(text: str | None) -> dict[str, Any]:
    """Columns typed as ``user=who,item=2``, as ``read_interactions`` takes them.

    Raises:
        ArgumentError: it is not of that form.
    """
    pairs = [part.partition("=")[::2] for part in text.split(",")] if text else []
    if not all(role in _ROLES and name for role, name in pairs):
        listed = ",".join(f"{role}=…" for role in _ROLES)
        raise ArgumentError(f"columns must be {listed} or some of these (got {shown(text)})")
    return {role: int(name) if name.isdecimal() else name for role, name in pairs}


def reads_data(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of ``read_interactions``; those that are typed come as a mapping, ``reading``."""

    @functools.wraps(command)
    def wrapper(**arguments: Any) -> None:
        typed = {name: arguments.pop(name) for name in _READING}
        given = {name: value for name, value in typed.items() if value is not None and name != "columns"}
        command(**arguments, reading=column_options(typed["columns"]) | given)

    own = inspect.signature(command, eval_str=True).parameters
    parameters = [parameter for name, parameter in own.items() if name != "reading"]
    for name, (kind, text) in _READING.items():
        # The type comes from a table, which a checker cannot follow.
        option = Annotated[kind | None, typer.Option(help=text)]  # type: ignore[valid-type]
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option))
    # What Typer reads; typeshed does not know that functions may have it.
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper


def read_data(source: str | Path, *, test: bool = False, quiet: bool = True, **options: Any) -> Interactions:
    """Read interactions; of a folder with ``test.txt``, that, where they are a ``test``.

    What reading did without being asked is said, unless it is to be ``quiet``.

    Raises:
        DataError: as ``read_interactions``, with advice in the form of the command line.
    """
    from hashlgn.data import read_interactions
    from hashlgn.evaluation.full_ranking import read_test

    try:
        data = read_test(source, **options) if test else read_interactions(source, **options)
    except DataError as error:
        raise DataError(typed_advice(str(error))) from error
    for note in data.notes:
        say(quiet, typed_advice(note))
    return data


def read_both(data: str | None, journal: Path | None, *, quiet: bool, **options: Any) -> Interactions:
    """Read interactions, the journal of a service, or both, one after the other.

    Raises:
        ArgumentError: neither is given.
        DataError: as ``read_data``.
        JournalError: the journal cannot be read.
    """
    interactions = None if data is None else read_data(data, quiet=quiet, **options)
    if journal is not None:
        from hashlgn.serve.journal.transfer import read_journal

        return read_journal(journal, interactions)
    if interactions is None:
        raise ArgumentError("data must be given, or a journal (got neither)")
    return interactions


def typed_advice(text: str) -> str:
    """What the library says to a programmer, as a person types it: ``--columns item=NAME``, ``--min-rating 4``."""
    text = _COLUMN.sub(r"--columns \1=NAME", text)
    return _OPTION.sub(lambda m: f"--{m[1].replace('_', '-')} {(m[2] or '').strip(chr(39))}".rstrip(), text)


def load_installed_plugins() -> None:
    """Import what installed packages name as entry points of the group ``hashlgn.plugins``.

    Raises:
        ArgumentError: one of them cannot be imported.
    """
    for entry in importlib.metadata.entry_points(group="hashlgn.plugins"):
        try:
            entry.load()
        except Exception as error:  # whatever a stranger's module raises
            raise ArgumentError(
                f"the installed plugin {entry.name} ({entry.value}) cannot be loaded: {error}"
            ) from error


def load_plugin(name: str) -> None:
    """Import a module, or a file ``*.py``, which registers encoders, hashes, losses, searchers or formats.

    Raises:
        ArgumentError: it cannot be imported.
    """
    path = Path(name).expanduser()
    sys.path[:] = [*sys.path, *([] if "" in sys.path or str(Path.cwd()) in sys.path else [str(Path.cwd())])]
    try:
        if path.suffix != ".py":
            importlib.import_module(name)
            return
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None  # the name ends in .py
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a stranger's module raises
        raise ArgumentError(f"plugin must be a module that can be imported (got {shown(name)}: {error})") from error
