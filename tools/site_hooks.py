"""Hooks of the documentation site: what GitHub shows and the site does not have, and pages that are made from the code."""

import re
from collections.abc import Iterator
from typing import Any

import click

_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./((?!reference/)[^)]+)\)")
_FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_COMMANDS = "<!-- commands -->"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Name files of the repository that pages link to, take the notebook's header off the tutorial, and write all options."""
    if page.file.src_uri == "reference/cli.md":
        return markdown.replace(_COMMANDS, "\n\n".join(commands()))
    if "/" in page.file.src_uri:
        return markdown
    return _OUTSIDE.sub(lambda m: f"{m[1]} (`{m[2]}` in the repository)", _FRONT.sub("", markdown))


def commands() -> Iterator[str]:
    """Yield a section a command: what `--help` prints."""
    from stpath_assets.cli import main

    root = click.Context(main, info_name="stpath-assets", terminal_width=100, max_content_width=100)
    yield from _sections(root, main, "")


def _sections(parent: click.Context, group: click.Group, before: str) -> Iterator[str]:
    for name in group.list_commands(parent):
        command = group.commands[name]
        context = click.Context(command, info_name=name, parent=parent)
        if isinstance(command, click.Group):
            yield from _sections(context, command, f"{before}{name} ")
        else:
            yield f"## {before}{name}\n\n```text\n{command.get_help(context)}\n```"
