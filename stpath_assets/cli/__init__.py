"""The command line: one thin file per command. It resolves settings, calls the domain or Dagster, and prints.

An error is one line on stderr with what to do next. The exit code is 1, or 2 for wrong usage. There is no traceback without
--debug. Each command imports what it needs inside: `--help` and `sql` start without torch and dagster.
"""

import click

from stpath_assets.cli.add import add
from stpath_assets.cli.completion import completion
from stpath_assets.cli.demo import demo
from stpath_assets.cli.doctor import doctor
from stpath_assets.cli.export import export
from stpath_assets.cli.fit import fit
from stpath_assets.cli.get import get
from stpath_assets.cli.gigapath import gigapath
from stpath_assets.cli.import_ import import_
from stpath_assets.cli.maintain import maintain
from stpath_assets.cli.predict import predict
from stpath_assets.cli.report import report
from stpath_assets.cli.retire import retire
from stpath_assets.cli.run import run
from stpath_assets.cli.sql import sql
from stpath_assets.cli.status import status
from stpath_assets.cli.view import view


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stpath-assets")
def main() -> None:
    """From H&E whole-slide scans to predicted spatial gene expression that you can query.

    \b
    stpath-assets demo --home data
    stpath-assets add S1.svs --organ Breast --tech Visium
    stpath-assets run
    stpath-assets view S1
    """


_COMMANDS = (
    add, get, run, fit, predict, view, sql, import_, export, report, retire, status, maintain, doctor, demo, gigapath, completion,
)  # fmt: skip
for _command in _COMMANDS:
    main.add_command(_command)
