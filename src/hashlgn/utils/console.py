"""What a person sees: progress on the terminal and as JSON lines in a file, results files, one line for an error."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from hashlgn.errors import ArgumentError, HashLGNError, UnknownIdError
from hashlgn.utils.progress import Progress as Step

__all__ = [
    "Interrupted",
    "exit_code",
    "json_lines",
    "named",
    "output",
    "say",
    "training_bar",
    "write_json",
]

output = Console(stderr=True, highlight=False)  # standard output is for answers
_PATIENCE = 5.0  # seconds of training after which a log gets a line
_LONG = 10.0  # seconds of a training that is long enough to be estimated
_MEASURED = 10  # steps that are measured for it, or fewer where they take more than a second


class Interrupted(Exception):
    """A command that was interrupted, and knows what is left of its work."""


@contextlib.contextmanager
def training_bar(metric: str, *, quiet: bool, title: str = "") -> Iterator[Callable[[Step], None]]:
    """Progress of a training: gives what ``fit(report=…)`` takes.

    A long training is estimated first, in one line: seconds and memory, by a measurement of its first steps. Then, on a
    terminal and in a notebook, there is a bar with epoch, loss, validation metric and time left; elsewhere one line per
    stage, once the training has taken a few seconds.

    Args:
        metric: name of the validation metric.
        quiet: show nothing.
        title: stands before the stage.
    """
    if quiet:
        yield lambda step: None
        return
    estimate = _estimate(title)
    if not _is_live():
        lines = _stage_lines(title)

        def tell(step: Step) -> None:
            estimate(step)
            lines(step)

        yield tell
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=output, transient=True) as bar:
        task: TaskID | None = None
        best: float | None = None

        def show(step: Step) -> None:
            nonlocal task, best
            estimate(step)
            if task is None:
                task = bar.add_task("", total=step.steps, state="")
            if step.metric is not None:
                best = step.metric
            state = f"loss {step.loss:.4f}" + (f"  {metric} {best:.4f}" if best is not None else "")
            text = f"{title}{step.stage} epoch {min(step.epoch + (not step.epoch_done), step.epochs)}/{step.epochs}"
            bar.update(task, total=step.steps, completed=step.step, description=text, state=state)

        yield show


def _is_live() -> bool:
    """Whether a bar can be drawn: on a terminal, or in a notebook that has what rich draws with."""
    return output.is_terminal or (output.is_jupyter and importlib.util.find_spec("ipywidgets") is not None)


def _estimate(title: str) -> Callable[[Step], None]:
    """One line before a long training: the seconds so far, and all steps left at the pace of the first ones."""
    first: Step | None = None
    told = False

    def show(step: Step) -> None:
        nonlocal first, told
        first = first or step
        done = step.step - first.step
        if told or not done or (done < _MEASURED and step.seconds - first.seconds < 1):
            return
        told = True
        seconds = step.seconds + (step.seconds - first.seconds) / done * (step.steps - step.step)
        if seconds < _LONG:
            return
        steps = "step" if done == 1 else f"{done} steps"
        memory = "" if step.memory is None else f" and {step.memory / 1e9:.1f} GB of memory"
        say(False, f"{title}this training takes {_span(seconds)}{memory}, by its first {steps}")

    return show


def _stage_lines(title: str) -> Callable[[Step], None]:
    """A line per stage, after its first epoch that ends when the training has taken ``_PATIENCE`` seconds."""
    told: set[str] = set()
    began: dict[str, tuple[float, int]] = {}

    def show(step: Step) -> None:
        seconds, first = began.setdefault(step.stage, (step.seconds, step.step))
        if step.stage in told or not step.epoch_done or step.seconds < _PATIENCE or step.step <= first:
            return
        told.add(step.stage)
        left = (step.seconds - seconds) / (step.step - first) * (step.steps - step.step)
        say(False, f"{title}{step.stage}: epoch {step.epoch} of at most {step.epochs}, at most {_span(left)} left")

    return show


def _span(seconds: float) -> str:
    """A length of time in words."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"about {seconds / size:.0f} {unit}"
    return f"about {max(seconds, 1):.0f} s"


@contextlib.contextmanager
def json_lines(path: Path | None, metric: str) -> Iterator[Callable[[Step], None]]:
    """Append one JSON object an epoch to a file; nothing where ``path`` is None.

    Raises:
        ArgumentError: the file cannot be written.
    """
    if path is None:
        yield lambda step: None
        return
    try:
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise ArgumentError(f"log must be a writable file (got {str(path)!r}: {error.strerror})") from error
    with file:

        def write(step: Step) -> None:
            if not step.epoch_done:
                return
            line: dict[str, Any] = {"stage": step.stage, "epoch": step.epoch, "loss": step.loss}
            if step.metric is not None:
                line[metric] = step.metric
            file.write(json.dumps(line | {"seconds": round(step.seconds, 3)}) + "\n")
            file.flush()

        yield write


def write_json(path: Path, value: Any) -> None:
    """Write a results file, whole or not at all.

    Raises:
        ArgumentError: it cannot be written.
    """
    from hashlgn.utils.storage import json_text, result_file

    content = json_text("results", value, indent=2)
    with result_file("json", path) as temporary:
        temporary.write_bytes(content + b"\n")


def say(quiet: bool, text: str) -> None:
    """Print a line beside the answers, unless it is to be quiet."""
    if not quiet:
        output.print(text, soft_wrap=True, markup=False)


def named(recommender: Any, code: int) -> str:
    """An item as a person reads it: id, title and genres."""
    model = recommender.model
    text = str(model.item_ids.decode([code])[0])
    if model.titles is not None and model.titles[code]:
        text += f"  {model.titles[code]}"
    if model.genres is not None and model.genres[code]:
        text += f"  ({', '.join(model.genres[code])})"
    return text


def exit_code(app: typer.Typer, arguments: list[str]) -> int:
    """Run one command line: 0 for done, 1 for failed work, 2 for bad usage, 130 for interrupted."""
    usage_error: type[Exception] = typer.BadParameter.__mro__[1]  # Typer has moved this class about, and not its child
    try:
        code = app(_plugins_first(arguments), prog_name="hashlgn", standalone_mode=False)
        if code == 130:  # Typer has turned the interruption into a code
            return _fail(130, "interrupted")
        return code if isinstance(code, int) else 0
    except usage_error as error:
        message = str(getattr(error, "format_message", error.__str__)())
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(message)
            return 0
        context = getattr(error, "ctx", None)
        return _fail(2, f"{message.rstrip('.')} (see {context.command_path if context else 'hashlgn'} --help)")
    except (ArgumentError, UnknownIdError) as error:
        return _fail(2, str(error))
    except HashLGNError as error:
        return _fail(1, str(error))
    except BrokenPipeError:  # nobody reads the output any more, and Python would complain when it flushes it at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(1, f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
    except Interrupted as stop:
        return _fail(130, str(stop))
    except (KeyboardInterrupt, typer.Abort):
        return _fail(130, "interrupted")


def _plugins_first(arguments: list[str]) -> list[str]:
    """The same command line with every ``--plugin`` at the front: it may stand anywhere, and is needed first."""
    front: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--plugin":
            front += [word, *(value for value in [next(words, None)] if value is not None)]
        else:
            (front if word.startswith("--plugin=") else rest).append(word)
    return front + rest


def _fail(code: int, message: str) -> int:
    print("hashlgn:", " ".join(message.split()), file=sys.stderr)
    return code
