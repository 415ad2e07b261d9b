"""`resshift serve`: a page, an API, or JSON lines, with a model that stays loaded."""

from __future__ import annotations

import io
import os
import secrets
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from resshift_cli.commands import choice, console, exits, ready, signals, values
from resshift_cli.commands.file_options import MaxPixelsOption
from resshift_cli.commands.groups import Machine, Model, Options
from resshift_cli.commands.options import DebugOption, QuietOption
from resshift_cli.errors import InputMissingError, OutputError, UsageError, printable

if TYPE_CHECKING:
    from resshift_cli.restoration.model import Resources
    from resshift_cli.serving.service import Service
    from resshift_cli.serving.shelf import Limits

PORT = 8040
ENDING = 6.0  # seconds that jobs have when the service is to end


@dataclass(frozen=True, slots=True)
class Address(Options):
    """Where it listens, and to whom."""

    panel = "Where to listen"

    host: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Address to listen at. By default this machine alone; with any other one, such as "
            "0.0.0.0, every request needs the token.",
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        typer.Option(
            metavar="N", callback=values.within(0, 65535), help="Port; 0 for any that is free."
        ),
    ] = PORT
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="What every request has to know. By default one is made where --host is another "
            "machine's way here, and printed once.",
        ),
    ] = None
    opened: Annotated[
        bool, typer.Option("--open", help="Open the page in the browser when it is there.")
    ] = False
    stdio: Annotated[
        bool,
        typer.Option(
            "--stdio",
            help="Listen to nobody, but read requests from stdin and write answers to stdout: one "
            "JSON object a line, for editors and plugins.",
        ),
    ] = False


@dataclass(frozen=True, slots=True)
class Extent(Options):
    """What it takes on."""

    panel = "What to take on"

    root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            readable=False,
            help="A folder whose images requests may name by path. By default none: images are "
            "sent. With --stdio: the only folder that is read and written; by default any.",
        ),
    ] = None
    keep: Annotated[
        int,
        typer.Option(
            metavar="MINUTES",
            callback=values.within(1, 100_000),
            help="How long what was sent, and results, are kept after they were last asked for.",
        ),
    ] = 60
    max_upload: Annotated[
        int,
        typer.Option(
            metavar="SIZE",
            parser=values.byte_count,
            show_default=False,
            help="Largest file that may be sent. By default 256M.",
        ),
    ] = 256 << 20
    max_pixels: MaxPixelsOption = values.MAX_PIXELS
    max_queue: Annotated[
        int,
        typer.Option(
            metavar="N", callback=values.within(1, 100_000), help="Most jobs that may wait."
        ),
    ] = 64
    max_time: Annotated[
        int,
        typer.Option(
            metavar="MINUTES",
            callback=values.within(1, 100_000),
            help="How long a single job may take.",
        ),
    ] = 360

    def limits(self) -> Limits:
        """As the service takes them."""
        from resshift_cli.serving.shelf import Limits

        return Limits(
            pixels=self.max_pixels,
            upload=self.max_upload,
            queue=self.max_queue,
            seconds=60.0 * self.max_time,
            keep=60.0 * self.keep,
        )


@dataclass(frozen=True, slots=True)
class Telling(Options):
    """What is told."""

    panel = "How to report"

    quiet: QuietOption = False
    debug: DebugOption = False


def serve(
    *,
    address: Address,
    extent: Extent,
    model: Model,
    machine: Machine,
    reporting: Telling,
) -> None:
    """Enlarge photos in the browser, or for other programs, with a model that stays loaded.

    The page is at the address that is printed, the API below it at /api, described in
    /api/openapi.json. It listens to this machine alone, and Ctrl-C ends it. The page and the API
    need `pip install 'resshift[serve]'`; --stdio does not.
    """
    if extent.root is not None and not extent.root.is_dir():
        raise InputMissingError(
            f"There is no folder {printable(extent.root)} (--root).", hint="Check its name."
        )
    if not address.stdio:
        _check_extra()
    elif address.opened:
        raise UsageError(
            "With --stdio nobody listens: there is no page to open.", hint="Leave one of them out."
        )
    entry = choice.choose(model)
    ready.import_torch()
    from resshift_cli.serving.photos import Root
    from resshift_cli.serving.service import Service
    from resshift_cli.serving.warm import Models

    def tell(text: str) -> None:
        if not reporting.quiet:
            console.warning(text)

    resources: Resources = {**asdict(machine), "tell": tell}  # type: ignore[typeddict-item]
    models = Models(entry, model.registry, model.offline, resources)
    service = Service(models, Root(extent.root), extent.limits())
    run = _pipes(service) if address.stdio else _server(service, address, reporting)
    try:
        try:
            run()
        finally:
            service.close(ENDING)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            error.args = ("the service has ended, and what it kept is deleted",)
        elif service.jobs.idle():
            raise
        _leave(error, debug=reporting.debug)


def _check_extra() -> None:
    """Make sure that there is what it takes to listen."""
    try:
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"The page and the API need a package that is not installed ({error.name}).",
            hint="Install it with `pip install 'resshift[serve]'`, or use --stdio.",
        ) from error


def _pipes(service: Service) -> Callable[[], None]:
    """What serves stdin, if there is one; JSON is UTF-8, whatever else is spoken here."""
    from resshift_cli.serving.stdio import Pipes

    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    return lambda: Pipes(service, sys.stdout).run(sys.stdin or ())


def _server(service: Service, address: Address, reporting: Telling) -> Callable[[], None]:
    """What listens.

    Raises:
        ResShiftError: it can't.
    """
    from resshift_cli.serving import server
    from resshift_cli.serving.guards import LOCAL, Rules

    socket = server.listening(address.host, address.port)
    port, local = socket.getsockname()[1], server.is_local(address.host)
    token = address.token or (None if local else secrets.token_urlsafe(24))
    hosts = LOCAL | {address.host.lower()} if local else None
    rules = Rules(hosts, token, f"resshift-{port}", service.limits.upload)
    listener = server.Server(service, rules, debug=reporting.debug)
    name = f"[{address.host}]" if ":" in address.host else address.host
    way = f"http://{name}:{port}/" + (f"?token={token}" if token else "")

    def run() -> None:
        if not reporting.quiet:
            console.note(f"{service.models.default.name} is served at {way} (Ctrl-C ends it).")
        if not sys.stdout.closed and not sys.stdout.isatty():
            print(way, flush=True)
        if address.opened:
            _open(way)
        with signals.Postponed(listener.stop):
            listener.run(sockets=[socket])

    return run


def _open(way: str) -> None:
    """Open the page, as the system opens such."""
    import webbrowser

    if not webbrowser.open(way):
        console.note("No browser was found; open the address yourself.")


def _leave(error: BaseException, *, debug: bool) -> NoReturn:
    """End as the error says, and at once.

    Python's own end would wait for what threads of a pool still compute for requests, which nobody
    can stop, and take seconds itself with all that is loaded, where the machine is busy.
    """
    code = exits.explain(error, debug=debug)
    with suppress(OSError, OutputError):  # nobody reads it
        sys.stdout.flush()
    os._exit(code)
