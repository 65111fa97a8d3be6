"""The commands. Each imports what it needs when it runs, so that help and errors come in a blink.

stdout carries results, stderr carries talk, and every error is three sentences and an exit code.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from qlora_tui import __version__
from qlora_tui.errors import ExitCode, RunError, UsageError
from qlora_tui.terminal.presence import has_screen

EXAMPLES = """\b
Examples:
  qlora-tui                                 the wizard, and the runs there are
  qlora-tui --config run.yaml               train what the file describes
  qlora-tui --config run.yaml --json        the same for a script: one object on stdout
  qlora-tui --config run.yaml --detach      start it and come back at once
  qlora-tui attach spam-triage              watch a run from any terminal
  qlora-tui stop spam-triage                finish the step, save, stop
  qlora-tui resume spam-triage              go on from the last checkpoint
  qlora-tui estimate --config run.yaml      does it fit, and how fast could it be?
  qlora-tui inspect --config run.yaml       what the data will teach, before anything is trained
  qlora-tui chat spam-triage --prompt "Win a prize now!" --compare
  qlora-tui merge spam-triage               one model of 16-bit weights, with a fidelity check
  qlora-tui export spam-triage --for vllm   how to serve it

\b
Exit codes: 0 ok, 1 run failed, 2 usage or config, 3 environment, 4 out of memory, 130 interrupted."""

app = typer.Typer(
    name="qlora-tui",
    help="From a pile of text and one GPU to a trained, tested and exported QLoRA adapter.",
    epilog=EXAMPLES,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

Json = Annotated[bool, typer.Option("--json", help="Write one JSON value to stdout and no narration.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="Name of the run, or path of its directory.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"qlora-tui {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Train the run that this file describes.")] = None,
    as_json: Json = False,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the run, instead of the file's.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a finished run of that name.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Start the run and leave it to itself.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Narrate nothing; errors are still told.")] = False,
    ascii_only: Annotated[bool, typer.Option("--ascii", help="Draw the screens with ASCII characters only.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    given = [
        option
        for option, value in {
            "--config": config, "--name": name, "--overwrite": overwrite, "--detach": detach, "--quiet": quiet,
            "--json": as_json,
        }.items()
        if value
    ]  # fmt: skip
    if context.invoked_subcommand is not None:
        if given:
            raise UsageError(
                "This command line does not make sense.",
                f"{given[0]} belongs to training from a config file, not before `{context.invoked_subcommand}`.",
                f"See `qlora-tui {context.invoked_subcommand} --help`.",
            )
    elif config is not None:
        from qlora_tui.train_command import train

        code = train(config, name=name, overwrite=overwrite, detach=detach, as_json=as_json, quiet=quiet)
        raise typer.Exit(code)
    elif given:
        raise UsageError(
            "This command line does not make sense.",
            f"{given[0]} does nothing without --config.",
            "Add --config run.yaml, or see `qlora-tui --help`.",
        )
    else:
        _home()


def _home() -> None:
    """What there is and how to go on."""
    from qlora_tui.runs.overview import overviews
    from qlora_tui.terminal.table import table

    print("qlora-tui trains a QLoRA adapter from one config file.\n")
    print("  qlora-tui --config run.yaml   train; the adapter and its log go into a run directory")
    print("  qlora-tui attach [RUN]        watch a run, from any terminal")
    print("  qlora-tui stop | resume RUN   end it with everything saved, and go on later")
    print("  qlora-tui chat RUN --prompt … ask the adapter, or compare it with its base")
    print("  qlora-tui schema              every setting of the config")
    print("  qlora-tui --help              all commands, with examples")
    if rows := [each.as_cells() for each in overviews()]:
        print("\nRuns:\n" + table(("name", "status", "step", "best loss", "age"), rows[:5]))
        if len(rows) > 5:
            print(f"… and {len(rows) - 5} more: qlora-tui runs")


@app.command()
def runs(as_json: Json = False) -> None:
    """List the runs, newest first."""
    from qlora_tui.paths import runs_directory
    from qlora_tui.runs.overview import overviews
    from qlora_tui.terminal.table import table

    found = overviews()
    if as_json:
        print(json.dumps([each.as_values() for each in found]))
    elif found:
        print(table(("name", "status", "step", "best loss", "age"), [each.as_cells() for each in found]))
    else:
        _talk(f"There are no runs in {runs_directory()}. Start one with `qlora-tui --config run.yaml`.")


@app.command()
def attach(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Name or path; else the one that trains.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of the application.")] = False,
) -> None:
    """Watch a run. Leaving, and closing the terminal, leaves it running; with --plain, Ctrl-C stops it and saves."""
    from qlora_tui.headless import follow
    from qlora_tui.runs.directory import find_run, running_run
    from qlora_tui.train_command import style_for

    found = running_run() if run is None else find_run(run)
    if has_screen() and not plain:
        from qlora_tui.tui.app import run_app

        raise typer.Exit(run_app(station="train", run=found))
    if found.status() == "created":
        raise RunError(
            f"There is nothing to watch in {found.name}.",
            "The run was created and never started.",
            f"Start it with `qlora-tui resume {found.name}`.",
        )
    raise typer.Exit(
        follow(found, style=style_for(as_json=False, quiet=False), process=None, from_start=False).exit_code
    )


@app.command()
def stop(
    run: Run, now: Annotated[bool, typer.Option("--now", help="End it at once; nothing more is saved.")] = False
) -> None:
    """Ask a run to finish its step, save and stop."""
    from qlora_tui.runs import launch
    from qlora_tui.runs.directory import find_run

    found = find_run(run)
    owner = launch.request_stop(found)
    if now:
        launch.kill(found)
        _talk(f"{found.name} (process {owner}) was ended. Go on from its last checkpoint with `qlora-tui resume`.")
    else:
        _talk(f"{found.name} (process {owner}) finishes its step, saves and stops.")


@app.command()
def resume(run: Run, as_json: Json = False) -> None:
    """Go on with a run that was stopped, broke off or failed."""
    from qlora_tui.train_command import go_on

    raise typer.Exit(go_on(run, as_json=as_json))


@app.command()
def inspect(
    config: Annotated[Path, typer.Option(metavar="FILE", help="The config whose data is looked at.")],
    row: Annotated[
        str | None, typer.Option(metavar="N", help="Show this row in full: its number, longest, shortest or random.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what the data will teach: format, lengths, trained tokens, duplicates, private data, single rows."""
    from qlora_tui.terminal.inspect_command import inspect as run

    run(config, row, as_json=as_json)


@app.command()
def chat(
    target: Annotated[str, typer.Argument(metavar="RUN_OR_ADAPTER", help="A run, or a folder that holds an adapter.")],
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="What to ask; without it a chat opens.")] = None,
    base: Annotated[str | None, typer.Option(metavar="MODEL", help="Base model, if not the adapter's own.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Also let the base without the adapter answer.")] = False,
    as_json: Json = False,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="System turn instead of the run's.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, max=32768, help="Longest answer, in tokens.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, max=10, help="0 always takes the likeliest token.")] = 0.0,
    seed: Annotated[int | None, typer.Option(min=0, max=2**63 - 1, help="Seed of the sampling.")] = None,
) -> None:
    """Ask an adapter one thing, or adapter and base the same; or open a chat with both."""
    from qlora_tui.runs.adapters import find_adapter
    from qlora_tui.terminal import chatting

    if prompt is None and has_screen():
        from qlora_tui.tui.app import run_app

        raise typer.Exit(run_app(station="chat", run=find_adapter(target)))
    if prompt is None or not prompt.strip():
        raise UsageError("There is nothing to ask.", "The prompt is empty.", 'Give one with --prompt "…".')
    request = chatting.ChatRequest(prompt, system, compare, max_tokens, temperature, seed)
    chatting.chat(find_adapter(target), base, request, as_json=as_json)


@app.command()
def merge(
    target: Annotated[str, typer.Argument(metavar="RUN_OR_ADAPTER", help="A run, or a folder that holds an adapter.")],
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to; default: beside the adapter.")] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Merge into the base as it was quantised, not as it was published.")
    ] = False,
    base: Annotated[str | None, typer.Option(metavar="MODEL", help="Base model, if not the adapter's own.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier merge.")] = False,
    as_json: Json = False,
) -> None:
    """Merge an adapter into 16-bit weights, and measure whether the result still answers alike."""
    from qlora_tui.terminal.shipping import merge as run_merge

    run_merge(target, output, exact=exact, base=base, overwrite=overwrite, as_json=as_json)


@app.command()
def export(
    target: Annotated[str, typer.Argument(metavar="RUN_OR_ADAPTER", help="A run, or a folder that holds an adapter.")],
    merged: Annotated[bool, typer.Option("--merged", help="The run's merged model instead of the adapter.")] = False,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Copy it there.")] = None,
    server: Annotated[
        str | None, typer.Option("--for", metavar="SERVER", help="Print only this: transformers, vllm or ollama.")
    ] = None,
    push: Annotated[str | None, typer.Option(metavar="OWNER/NAME", help="Push it to the hub.")] = None,
    public: Annotated[bool, typer.Option("--public", help="Let everybody see it there; else it is private.")] = False,
    as_json: Json = False,
) -> None:
    """Show how to serve an adapter or a merged model, copy it, or push it to the hub.

    The token to push with is that of `hf auth login` or HF_TOKEN.
    """
    from qlora_tui.terminal import shipping

    request = shipping.ExportRequest(merged, output, server, push, public)
    shipping.export(target, request, as_json=as_json)


@app.command()
def estimate(
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="The recipe.")] = None,
    gpu: Annotated[
        str | None, typer.Option(metavar="CARD", help='Another card, such as "RTX 3060", or its memory: 12GiB.')
    ] = None,
    as_json: Json = False,
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="Base model instead of the recipe's.")] = None,
    max_length: Annotated[int | None, typer.Option(min=8, max=1_048_576, help="Longest row in tokens.")] = None,
    micro_batch: Annotated[int | None, typer.Option(min=1, max=65_536, help="Rows on the device at once.")] = None,
    rank: Annotated[int | None, typer.Option(min=1, max=1024, help="Rank of the adapter.")] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Run one step of the real libraries without a GPU; takes a minute.")
    ] = False,
) -> None:
    """Say whether a recipe fits into memory, with its parts, and the fastest settings that do."""
    from qlora_tui.estimate_command import estimate as answer
    from qlora_tui.recipe_options import Overrides

    if exact and not as_json:
        _talk("One step of the real libraries is run without a GPU; this can take a minute.")
    print(answer(config, Overrides(model, max_length, micro_batch, rank), gpu=gpu, as_json=as_json, exact=exact))


@app.command()
def models(
    text: Annotated[list[str] | None, typer.Argument(metavar="[FILTER]", help="Words that the id holds.")] = None,
    gpu: Annotated[
        str | None, typer.Option(metavar="CARD", help='Another card, such as "RTX 3060", or its memory: 12GiB.')
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Judge by this recipe, not the default.")] = None,
    as_json: Json = False,
) -> None:
    """List base models, smallest first: what each needs, its licence, and whether it fits."""
    from qlora_tui.models_command import models as listing

    print(listing(" ".join(text or ()), config, gpu=gpu, as_json=as_json))


@app.command()
def doctor(
    as_json: Json = False,
    online: Annotated[bool, typer.Option("--online", help="Also ask whether the hub can be reached.")] = False,
) -> None:
    """Check whether this machine can train, with a real 4-bit product, and say how to mend what cannot."""
    from qlora_tui.doctor import examine, render, to_json, worst

    findings = examine(online=online)
    print(to_json(findings) if as_json else "\n".join(render(findings)))
    raise typer.Exit(ExitCode.ENVIRONMENT if worst(findings) == "fail" else ExitCode.OK)


@app.command()
def schema() -> None:
    """Print the config's JSON Schema: every setting with its reason."""
    from qlora_tui.config_file import config_schema

    print(json.dumps(config_schema(), indent=2))


@app.command()
def paths(as_json: Json = False) -> None:
    """Print where runs, caches and measurements are kept."""
    from qlora_tui.paths import all_paths

    folders = {name: str(path) for name, path in all_paths().items()}
    print(json.dumps(folders) if as_json else "\n".join(f"{name:<6} {path}" for name, path in folders.items()))


def _talk(text: str) -> None:
    from qlora_tui.text import printable

    print(printable(text), file=sys.stderr)
