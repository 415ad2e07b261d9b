"""`resshift models`: what exists, what is here, and how the rest gets here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resshift_cli import __version__
from resshift_cli.commands import catalogue, console, ready
from resshift_cli.commands.file_options import OverwriteOption
from resshift_cli.commands.help import Command
from resshift_cli.commands.options import (
    DebugOption,
    JsonOption,
    NameArgument,
    NamesArgument,
    QuietOption,
    RegistryOption,
)
from resshift_cli.errors import ModelUnavailableError, ResShiftError, UsageError

if TYPE_CHECKING:
    from resshift_cli.weights.registry import HubSource, ModelEntry

app = typer.Typer(rich_markup_mode=None, help="The models that --model knows.")


@app.callback(invoke_without_command=True)
def models(context: typer.Context) -> None:
    """The models that --model knows; without a command, the list of them."""
    if context.invoked_subcommand is None:
        list_models()


@app.command("list", cls=Command)
def list_models(
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK",
            help="Only models for this: upscale, inpaint, restore or another task that they have.",
        ),
    ] = None,
    speed: Annotated[
        bool,
        typer.Option(
            "--speed",
            help="Measure this machine, and tell about how long a photo of 512x512 pixels takes.",
        ),
    ] = False,
    registry_file: RegistryOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print names alone.")] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the models by the command that runs them; the default is what it takes unless told."""
    known = catalogue.grouped(task, registry_file)
    if quiet:
        for entry in known:
            print(entry.name)
        return
    if as_json:
        console.document(
            {"version": __version__, "models": [catalogue.facts(entry) for entry in known]}
        )
        return
    machine = catalogue.measured() if speed else None
    titles = ("NAME", "FOR", "SCALE", "STEPS", "SIZE", *(["SPEED"] if speed else []))
    rows = [catalogue.row(entry, machine) for entry in known]
    console.table((*titles, "COMMERCIAL", "HERE"), rows)


@app.command(cls=Command)
def info(
    name: NameArgument,
    registry_file: RegistryOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Tell everything about a model, and what it will need on this machine."""
    from resshift_cli.weights import registry

    entry = registry.find(name, registry_file)
    facts = catalogue.facts(entry)
    spec = ready.known_spec(entry)
    if spec is not None:
        facts["on_this_machine"] = catalogue.forecast(spec, catalogue.measured())
    if as_json:
        console.document({"version": __version__, **facts})
        return
    console.facts(catalogue.for_people(entry, facts))


@app.command(cls=Command)
def pull(
    names: NamesArgument = None,
    everything: Annotated[bool, typer.Option("--all", help="Every model there is.")] = False,
    registry_file: RegistryOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Fetch models, so that they can be used without a network."""
    failed: list[ResShiftError] = []
    for entry in _named(names, registry_file, everything=everything):
        try:
            files = ready.fetch(entry, offline=False, quiet=quiet)
        except ResShiftError as error:
            if not everything:
                raise
            failed.append(error)
            console.error(f"{entry.name}: {error}", error.hint)
            continue
        if not quiet:
            console.note(f"{entry.name} is here: {files.weights}")
    if failed:
        raise typer.Exit(failed[0].exit_code)


@app.command(cls=Command)
def verify(
    names: NamesArgument = None,
    registry_file: RegistryOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Compare the files that are here with their recorded checksums; all models by default."""
    from resshift_cli.weights import store

    bad, seen = [], set()
    for entry in _named(names, registry_file, everything=not names):
        if names and not store.located(entry):
            raise _not_here(entry)
        for check in store.verify(entry):
            if check.path in seen:  # models share autoencoders
                continue
            seen.add(check.path)
            if check.problem:
                bad.append(check)
                # `rm` would leave a file that other models use as well.
                away = (
                    "Delete it" if check.file.is_pickled else f"`resshift models rm {entry.name}`"
                )
                console.error(
                    f"{check.path} ({entry.name}): {check.problem}.",
                    f"{away}, then `resshift models pull {entry.name}`.",
                )
            elif not quiet:
                console.note(f"{entry.name}: {check.path} is as it should be")
    if bad:
        raise typer.Exit(ModelUnavailableError.exit_code)


@app.command(cls=Command)
def rm(
    names: NamesArgument = None,
    registry_file: RegistryOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Delete what was fetched for models, and forget its checksums.

    A file that another model which is here uses as well stays.
    """
    from resshift_cli.weights import registry, store

    going = _named(names, registry_file, everything=False)
    staying = [
        entry
        for entry in registry.models(registry_file).values()
        if entry not in going and store.located(entry)
    ]
    keep = frozenset(file.key for entry in staying for file in entry.files)
    for entry in going:
        freed = store.remove(entry, keep=keep)
        if not quiet:
            console.note(f"{entry.name}: {console.size(freed) if freed else 'nothing'} freed")


@app.command(cls=Command)
def path(
    name: NameArgument, registry_file: RegistryOption = None, debug: DebugOption = False
) -> None:
    """Print where the weight files of a model lie, one per line."""
    from resshift_cli.weights import registry, store

    entry = registry.find(name, registry_file)
    files = store.located(entry)
    if files is None:
        raise _not_here(entry)
    for file in (files.weights, files.autoencoder, files.detector):
        if file is not None:
            print(file)


@app.command(cls=Command)
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN.pth", readable=False, help="A file of PyTorch weights.", show_default=False
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(metavar="OUT.safetensors", help="What it becomes.", show_default=False),
    ],
    like: Annotated[
        str,
        typer.Option(metavar="NAME", help="The model whose network it is.", show_default=False),
    ],
    autoencoder: Annotated[
        bool, typer.Option("--autoencoder", help="It holds that model's autoencoder.")
    ] = False,
    overwrite: OverwriteOption = False,
    registry_file: RegistryOption = None,
    debug: DebugOption = False,
) -> None:
    """Turn a .pth file into a safetensors file for --weights, running no code that it may carry."""
    from resshift_cli.weights import registry, store

    entry = registry.find(like, registry_file)
    store.convert_own(source, target, entry, autoencoder=autoencoder, overwrite=overwrite)
    console.note(f"{source} -> {target}")
    console.result(target)


@app.command(cls=Command)
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What --model shall call it.")],
    hub: Annotated[
        str | None,
        typer.Option(metavar="OWNER/REPO/FILE", help="A file on the Hugging Face Hub."),
    ] = None,
    revision: Annotated[
        str, typer.Option(metavar="REVISION", help="Branch, tag or commit, with --hub.")
    ] = "main",
    file: Annotated[
        Path | None,
        typer.Option(metavar="FILE.safetensors", readable=False, help="A file of your own."),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The model that it has the networks, steps and autoencoder of. Not needed where "
            "the file says so itself, as those that `resshift train` writes.",
        ),
    ] = None,
    licence: Annotated[
        str, typer.Option(metavar="ID", help="Its licence, e.g. Apache-2.0.")
    ] = "unknown",
    debug: DebugOption = False,
) -> None:
    """Give a model a name, in a registry of your own."""
    from resshift_cli.weights import registry, store

    if (hub is None) == (file is None):
        raise UsageError(
            "A model needs one place to come from.", hint="Use either --hub or --file."
        )
    source: registry.HubSource | registry.LocalSource
    base = None if like is None else registry.find(like)
    task: registry.Task = "real-world" if base is None else base.task
    if hub is not None:
        source = _hub_source(hub, revision)
    else:
        assert file is not None
        task = store.own(file, base, ()).task  # or it is refused here and now
        source = registry.LocalSource(str(file.resolve()))
    written = registry.add(name, source, like=like, licence=licence, task=task)
    *_, command = (each for each, tasks in registry.RUN_BY.items() if task in tasks)
    console.note(f"{name} is in {written} now: resshift {command} photo.jpg --model {name}")


@app.command(cls=Command)
def publish(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.safetensors|RUN",
            readable=False,
            help="A weight file that `resshift train` wrote, or the folder of its run.",
            show_default=False,
        ),
    ],
    repo: Annotated[
        str,
        typer.Option(
            metavar="USER/NAME", help="The repository; it is made if need be.", show_default=False
        ),
    ],
    private: Annotated[
        bool, typer.Option("--private", help="Let nobody else see a repository that is made.")
    ] = False,
    message: Annotated[
        str, typer.Option(metavar="TEXT", help="What its history says of this version.")
    ] = "Upload with resshift",
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Publish a model on the Hugging Face Hub; of a run, its card README.md as well."""
    from resshift_cli.diffusion import specs
    from resshift_cli.training import card, runlog
    from resshift_cli.weights import hub

    weights = source / runlog.WEIGHTS if source.is_dir() else source
    specs.read_spec(weights)  # or nobody could use it
    if not message.strip():
        raise UsageError("The message is empty.", hint="Leave --message out.")
    files = {weights.name: weights}
    readme = source / runlog.CARD
    if source.is_dir() and readme.is_file():
        files[readme.name] = readme
        if card.is_draft(readme):
            console.warning(f"{readme} has no licence yet: nobody else may use the model so.")
    with console.waiting(f"Publishing {repo}", quiet=quiet):
        address = hub.publish(repo, files, message=message, private=private)
    if not quiet:
        console.note(
            f"{repo} is published. Others can use it with "
            f"`resshift models add NAME --hub {repo}/{weights.name}`."
        )
    print(address)


def _hub_source(text: str, revision: str) -> HubSource:
    from resshift_cli.weights import registry

    owner, _, rest = text.partition("/")
    repo, _, name = rest.partition("/")
    if not (owner and repo and name):
        raise UsageError(
            f"'{text}' is not OWNER/REPO/FILE.",
            hint="For example --hub xocialize/nacre-v1/nacre_v1.safetensors.",
        )
    return registry.HubSource(f"{owner}/{repo}", name, revision)


def _named(
    names: Sequence[str] | None, registry_file: Path | None, *, everything: bool
) -> list[ModelEntry]:
    from resshift_cli.weights import registry

    if everything:
        if names:
            raise UsageError("--all and names exclude each other.", hint="Leave one out.")
        return list(registry.models(registry_file).values())
    if not names:
        raise UsageError("No model is named.", hint="`resshift models list` shows all.")
    return [registry.find(name, registry_file) for name in dict.fromkeys(names)]


def _not_here(entry: ModelEntry) -> ModelUnavailableError:
    return ModelUnavailableError(
        f"'{entry.name}' is not here.", hint=f"`resshift models pull {entry.name}` fetches it."
    )
