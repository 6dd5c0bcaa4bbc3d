"""The command line: sub-commands are looked up in a table and imported only when they run."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from typing import Any, NoReturn

import click

from restorer import __version__
from restorer.errors import DISK_REFUSALS, RestorerError
from restorer.own_stderr import own_stderr

INTERRUPTED = 130  # what shells report for a program that Ctrl-C ended


@dataclass(frozen=True)
class Entry:
    """Where a command lives, its line in the help, and the extra of this package that it needs."""

    module: str
    attribute: str
    help: str
    extra: str


COMMANDS = {
    "restore": Entry("restorer.restore_command", "restore", "Restore files, folders or a pipe.", "cpu"),
    "takes": Entry(
        "restorer.takes_command", "takes", "Restore a stretch of a song several ways, to choose a seed.", "cpu"
    ),
    "inspect": Entry(
        "restorer.inspect_command", "inspect", "Say how files were coded and whether to restore them.", "cpu"
    ),
    "compare": Entry("restorer.compare_command", "compare", "Compare versions of a song with pictures.", "cpu"),
    "demo": Entry("restorer.demo_command", "demo", "Make a short MP3, restore it and show the result.", "cpu"),
    "studio": Entry(
        "restorer.plugins.studio.command", "studio", "Restore and compare songs on a page in the browser.", "web"
    ),
    "info": Entry("restorer.info_command", "info", "Print what a model file says about itself.", "cpu"),
    "models": Entry("restorer.models_command", "models", "List the models that are bundled or cached.", "cpu"),
    "benchmark": Entry(
        "restorer.benchmark_command", "benchmark", "Measure how fast a model is on this machine.", "cpu"
    ),
    "metrics": Entry("restorer.metrics.command", "metrics", "Measure one audio file against another.", "cpu"),
    "prepare": Entry(
        "restorer.training.prepare_command",
        "prepare",
        "Make pairs of MP3 and original for training.",
        "train",
    ),
    "mix": Entry(
        "restorer.training.mix_command", "mix_command", "Make more training songs out of those that are there.", "train"
    ),
    "render": Entry(
        "restorer.training.render_command",
        "render_command",
        "Make music for training with soundfonts and a synthesiser.",
        "render",
    ),
    "pool": Entry(
        "restorer.training.pool_command", "pool_command", "Keep making training pairs while training goes on.", "train"
    ),
    "train": Entry("restorer.training.train_command", "train_command", "Train a model.", "train"),
    "restrain": Entry(
        "restorer.training.restrain_command",
        "restrain_command",
        "Teach a trained model to leave alone what lacks little.",
        "train",
    ),
    "evaluate": Entry("restorer.training.evaluate_command", "evaluate", "Measure a model on held-out pairs.", "train"),
    "listening-test": Entry(
        "restorer.training.listening_test_command", "listening_test", "Build and analyse a listening test.", "mp3"
    ),
    "export": Entry("restorer.export.export_command", "export", "Turn a checkpoint into an ONNX model.", "export"),
}


DECODING = ("restore", "takes", "inspect", "compare", "metrics")


class _Failure(click.ClickException):
    """One line on stderr, exit status 2."""

    exit_code = 2


class LazyGroup(click.Group):
    """Imports the module of a sub-command when it is called, and turns known errors into one line."""

    def main(self, *args: Any, standalone_mode: bool = True, **kwargs: Any) -> Any:
        """Run as a program: where decoders would print lines of their own, standard error is kept for ours."""
        if standalone_mode and sys.argv[1:2] and sys.argv[1] in DECODING:
            own_stderr()
        return super().main(*args, standalone_mode=standalone_mode, **kwargs)  # type: ignore[call-overload]

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        try:
            command: click.Command = getattr(importlib.import_module(entry.module), entry.attribute)
        except ImportError as error:
            _fail_import(error, entry, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RestorerError as error:
            raise _Failure(_one_line(error)) from error
        except ImportError as error:
            name = ctx.invoked_subcommand or ""
            if name not in COMMANDS:
                raise
            _fail_import(error, COMMANDS[name], name)
        except MemoryError as error:
            raise _Failure(
                "out of memory; close other programs, or restore fewer files, channels or takes at once"
            ) from error
        except OSError as error:
            if error.errno not in DISK_REFUSALS:
                raise
            verb = "open" if isinstance(error, PermissionError) else "write"
            raise _Failure(
                f"cannot {verb} {error.filename or 'the output'}: {error.strerror}; make room, or name another place"
            ) from error
        except KeyboardInterrupt:
            click.echo("Interrupted", err=True)
            ctx.exit(INTERRUPTED)


def _fail_import(error: ImportError, entry: Entry, command: str) -> NoReturn:
    """Name the command that installs what is missing; a missing module of our own is a bug and stays one."""
    if isinstance(error, RestorerError):
        raise _Failure(_one_line(error)) from error
    missing = (error.name or "").partition(".")[0]
    if not missing or missing == "restorer":
        raise error
    raise _Failure(
        f"`restorer {command}` needs {missing}, which is not installed or is damaged; "
        f'run: pip install "restorer[{entry.extra}]"'
    ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="restorer")
def main() -> None:
    """Restore heavily compressed music to full-band audio."""
