"""`completion`: completion of commands, options and slides in the shell."""

import click
from click.shell_completion import CompletionItem, get_completion_class

from stpath_assets.errors import StpathError

_PROGRAM, _VARIABLE = "stpath-assets", "_STPATH_ASSETS_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the shell's completion script.

    \b
    stpath-assets completion bash > ~/.local/share/bash-completion/completions/stpath-assets
    stpath-assets completion zsh > "${fpath[1]}/_stpath-assets"
    stpath-assets completion fish > ~/.config/fish/completions/stpath-assets.fish
    """
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(click.get_current_context().find_root().command, {}, _PROGRAM, _VARIABLE).source())


def slides(context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return the slides of the data root whose ids begin so; none if there is no lake."""
    from stpath_assets.settings import load_settings
    from stpath_assets.storage import Store

    try:
        known = Store.of(load_settings(context.params.get("home"))).slide_ids("slides")
    except (StpathError, OSError):  # there is nobody to tell in the middle of a line
        return []
    return [CompletionItem(slide_id) for slide_id in known if slide_id.startswith(begun)]
