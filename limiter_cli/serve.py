"""The subcommand `serve`: the page of limits, its API and metrics, by a server of its own."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from limiter_cli.exits import UNAVAILABLE, fail, plain_errors
from limiter_cli.output import print_line, printable
from limiter_cli.shared_store import DEFAULT_URL, Url, check_shared, described
from limiter_core import ConfigurationError
from limiter_core.brief import brief

__all__ = ("serve",)

_ROOT_PATH = re.compile(r"(/(?![/\\])[^\s\\?#]*[^\s\\?#/])?")
"""In ASCII, too: that is what a request's path is made of."""


def serve(
    *,
    url: Url = DEFAULT_URL,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where it listens.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8700,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="LIMITER_TOKEN",
            metavar="TOKEN",
            show_default=False,
            help="What changing limits needs; without it the page is read-only. Give it in the "
            "environment.",
        ),
    ] = None,
    public: Annotated[
        bool,
        typer.Option(
            "--public", help="Anyone who reaches the address may read, without the token."
        ),
    ] = False,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="A name by which browsers reach it, such as limits.example.com; repeatable. "
            "Addresses and localhost are always allowed.",
        ),
    ] = None,
    top_keys: Annotated[
        int, typer.Option(min=0, metavar="N", help="The N busiest keys are labels in /metrics.")
    ] = 0,
    root_path: Annotated[
        str,
        typer.Option(
            metavar="PATH", show_default=False, help="The path at which a proxy has the page."
        ),
    ] = "",
    trace_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            show_default=False,
            help="Where a trace can be seen, with {trace_id} in it.",
        ),
    ] = None,
) -> None:
    """Serve the page of limits: keys and names live, changes with a token, /api and /metrics.

    Exits with 69 if the address cannot be used. A store that is away is no error: the page says so.
    """
    with plain_errors():
        from limiter_web import limits_app  # noqa: PLC0415  (other subcommands do without the extra)
        from limiter_web.server import bind, check_exposure, is_loopback  # noqa: PLC0415  (likewise)
        from limiter_web.server import serve as serve_app  # noqa: PLC0415  (likewise)

        check_shared(url)
        if not (root_path.isascii() and _ROOT_PATH.fullmatch(root_path.rstrip("/"))):
            raise ConfigurationError(
                f"--root-path is a path such as /limits, got {brief(root_path)}"
            )
        check_exposure(host, token=token, public=public)
        app = limits_app(
            url,
            token=token,
            private=not (is_loopback(host) or public),
            allowed_hosts=allowed_host or (),
            top_keys=top_keys,
            trace_url=trace_url,
        )
    try:
        listener = bind(host, port)
    except OSError as error:
        fail(f"limiter: cannot listen at {host}:{port}: {error.strerror or error}", UNAVAILABLE)
    shown = f"[{host}]" if ":" in host else host
    used = listener.getsockname()[1]
    mode = "read-only" if token is None else "changes need the token"
    print_line(printable(f"http://{shown}:{used}/ ({mode}), limits of {described(url)}"))
    serve_app(app, listener, root_path=root_path.rstrip("/"))
