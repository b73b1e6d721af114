"""``mteval serve``: scorers as an HTTP reward service."""

from __future__ import annotations

from typing import Annotated

import typer

from mteval.verdict import GOOD


def serve(
    scorers: Annotated[
        list[str] | None, typer.Option(help="name or name:key=value. Repeatable. [default: those of shapes]")
    ] = None,
    host: Annotated[str, typer.Option(help="Any but this machine's own (127.0.0.1) needs a --token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any that is free.")] = 8765,
    token: Annotated[
        str | None, typer.Option(help="What clients must send.", envvar="MTEVAL_TOKEN", show_default=False)
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Views a request.")] = 64,
    max_mb: Annotated[int, typer.Option(min=1, help="Megabytes a request.")] = 256,
) -> int:
    """Serve scorers over HTTP, for any trainer, until Ctrl-C; docs/serve.md has the wire format.

    \b
    Example:
      mteval serve --scorers shapes-if --scorers shapes-cc --port 8765
      mteval run --scorers http:url=http://127.0.0.1:8765,scorer=shapes-if
    """
    from mteval import registry
    from mteval.config import parse_named
    from mteval.serve.server import RewardServer
    from mteval.serve.service import Service

    typed = scorers or registry.create("benchmark", "shapes").info.scorers
    named = [parse_named(text) for text in typed]
    service = Service([registry.create("scorer", item.name, item.args) for item in named], max_batch)
    with RewardServer(service, host, port, token, max_mb * 10**6) as server:
        typer.echo(f"serving {', '.join(service.names)} at {server.url} until Ctrl-C")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("stopped")
    return GOOD
