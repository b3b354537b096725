"""The commands of `sparc`, one module each. Heavy imports happen only when a command runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sparc import __version__
from sparc.cli import (
    Ended,
    ablate,
    attach,
    bench,
    complete,
    doctor,
    encode,
    evaluate,
    explore,
    export,
    extract,
    importing,
    info,
    localize,
    plan,
    plugins,
    search,
    train,
)
from sparc.errors import TimeUp


class _Commands(TyperGroup):
    """All commands. The end of `--max-time` keeps its reason."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command. Raises Ended when its time is up."""
        try:
            return super().invoke(ctx)
        except TimeUp as error:
            raise Ended(str(error)) from error


app = typer.Typer(
    name="sparc",
    cls=_Commands,
    help="One sparse, interpretable concept dictionary shared by many frozen models.",
    epilog="Start with: sparc train",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train.train)
app.command("extract")(extract.extract)
app.command("evaluate")(evaluate.evaluate)
app.command("complete")(complete.complete)
app.command("attach")(attach.attach)
app.command("detach")(attach.detach)
app.command("explore")(explore.explore)
app.command("encode")(encode.encode)
app.command("search")(search.search)
app.command("localize")(localize.localize)
app.command("export")(export.export)
app.command("info")(info.info)
app.command("ablate")(ablate.ablate)
app.command("plan")(plan.plan)
app.command("doctor")(doctor.doctor)
app.add_typer(importing.app, name="import")
app.add_typer(bench.app, name="bench")
app.add_typer(plugins.app, name="plugins")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere in the command.")
    ] = False,
) -> None:
    """One sparse, interpretable concept dictionary shared by many frozen models."""
