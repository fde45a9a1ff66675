"""What commands share: options, one-line errors, and notes."""

import functools
import json
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import click

from stpath_assets.cli.interrupts import ending_soon
from stpath_assets.errors import StpathError, failure_of_machine, one_line

Command = Callable[..., Any]


def common(command: Command, serves: bool = False) -> Command:
    """Add --home and --debug, print errors as one line, and end soon after Ctrl-C; a command that `serves` ends its own way."""

    @click.option("--home", type=click.Path(file_okay=False), help="Data root  [default: $STPATH_HOME]")
    @click.option("--debug", is_flag=True, help="Show tracebacks.")
    @functools.wraps(command)
    def wrapped(*args: Any, debug: bool, **kwargs: Any) -> Any:
        if debug:
            return command(*args, **kwargs)
        with nullcontext() if serves else ending_soon(), warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                return command(*args, **kwargs)
            except BrokenPipeError:
                raise  # `sql ... | head`: click ends quietly
            except (StpathError, OSError) as e:
                complain(f"{e.filename}: {e.strerror}" if isinstance(e, OSError) and e.filename else str(e))
                sys.exit(1)
            except Exception as e:
                if (said := failure_of_machine(e)) is None:
                    raise
                complain(said)
                sys.exit(1)

    return wrapped


serving = functools.partial(common, serves=True)
"""`common` for servers, whose usual end is Ctrl-C."""


def is_given(option: str) -> bool:
    """Return whether the user gave an option of the command, and did not leave it at its default."""
    source = click.get_current_context().get_parameter_source(option)
    return source not in (None, click.core.ParameterSource.DEFAULT)


def answer(as_json: bool, data: Any, *lines: str) -> None:
    """Print what a command has to say: lines for people, or the same as JSON."""
    if as_json:
        click.echo(json.dumps(data, indent=1, ensure_ascii=False, default=str))
    else:
        for line in lines:
            click.echo(line)


def begin(what: str) -> None:
    """Say at a terminal what a command begins with, if that takes a while."""
    if sys.stderr.isatty():
        click.echo(f"{what} …", err=True)


def complain(message: str) -> None:
    """Print an error, one line on stderr."""
    click.echo(f"error: {one_line(message)}", err=True)


def note(message: str) -> None:
    """Print a note for the user, one line on stderr."""
    click.echo(f"note: {one_line(message)}", err=True)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    # Other warnings, such as a library's deprecations, are for developers.
    if category is UserWarning:
        note(str(message))


def parse_scale(
    _context: click.Context, _option: click.Parameter, value: str | None
) -> float | tuple[float, float] | str | None:
    """Return the value of --mpp: a number, two numbers for x and y, or a word that the command may know."""
    words = ("file", "spots") if _context.command.name == "add" else ("file",)
    if value is None or value in words:
        return value
    try:
        x, *y = map(float, value.split(","))
        if len(y) > 1:
            raise ValueError
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is not a scale; give µm per pixel, or X,Y if pixels are not square, or file for the file's own"
        ) from None
    return (x, y[0]) if y else x


def mpp_option(from_file: bool) -> Callable[[Command], Command]:
    """Add --mpp. With `from_file`, `file` restores the file's own scale, and `spots` takes that of the spots' lattice."""
    back = "; file; or spots, for the scale of a Visium array" if from_file else ""
    said = f"µm per pixel at level 0, where the file does not say; X,Y if not square{back}."
    return click.option("--mpp", callback=parse_scale, help=said)


def genes_option(**default: Any) -> Callable[[Command], Command]:
    """Add --genes, which `panels.read_panel` reads."""
    said = "Gene symbols, comma-separated, all, a .txt or .json of genes, or top50:PATH."
    return click.option("--genes", help=said, **default)


encoder_option = click.option("--encoder", type=click.Choice(["gigapath", "demo"]))
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
