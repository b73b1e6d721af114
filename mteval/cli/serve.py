"""``mteval serve``: scorers as an HTTP reward service, or a judge as an OpenAI-compatible endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mteval.errors import UsageError
from mteval.verdict import GOOD

if TYPE_CHECKING:
    from mteval.serve.server import Answers


def serve(
    scorers: Annotated[
        list[str] | None, typer.Option(help="name or name:key=value. Repeatable. [default: those of shapes]")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="Serve a judge instead, name or name:key=value.", show_default=False)
    ] = None,
    host: Annotated[str, typer.Option(help="Any but this machine's own (127.0.0.1) needs a --token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any that is free.")] = 8765,
    token: Annotated[
        str | None, typer.Option(help="What clients must send.", envvar="MTEVAL_TOKEN", show_default=False)
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Views a request.")] = 64,
    max_mb: Annotated[int, typer.Option(min=1, help="Megabytes a request.")] = 256,
) -> int:
    """Serve scorers over HTTP, for any trainer, or a judge for any client of OpenAI's, until Ctrl-C: see docs/serve.md.

    \b
    Example:
      mteval serve --scorers shapes-if --scorers shapes-cc --port 8765
      mteval run --scorers http:url=http://127.0.0.1:8765,scorer=shapes-if
      mteval serve --judge shapes-pixels --port 8766
      mteval run --scorers vlm-if --judge openai:model=shapes-pixels,base_url=http://127.0.0.1:8766/v1
    """
    from mteval.serve.server import RewardServer

    if scorers and judge:
        raise UsageError("scorers and a judge are served each by its own server: leave out --scorers or --judge")
    service, names = _judge(judge) if judge else _scorers(scorers, max_batch)
    with RewardServer(service, host, port, token, max_mb * 10**6) as server:
        typer.echo(f"serving {names} at {server.url} until Ctrl-C")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("stopped")
    return GOOD


def _scorers(typed: list[str] | None, max_batch: int) -> tuple[Answers, str]:
    """The service, and the names of what it serves."""
    from mteval import registry
    from mteval.config import parse_named
    from mteval.serve.service import Service

    named = [parse_named(text) for text in typed or registry.create("benchmark", "shapes").info.scorers]
    service = Service([registry.create("scorer", item.name, item.args) for item in named], max_batch)
    return service, ", ".join(service.names)


def _judge(typed: str) -> tuple[Answers, str]:
    """The service, and the name of what it serves; with arguments it bears a mark of them, as clients keep replies."""
    from hashlib import sha256

    from mteval import registry
    from mteval.config import parse_named
    from mteval.serve.chat import Chat

    named = parse_named(typed)
    judge = registry.create("judge", named.name, named.args)
    info = judge.info
    mark = f"-{sha256(info.revision.encode()).hexdigest()[:8]}" if named.args else ""
    return Chat(judge, info.id + mark), f"the judge {info.id}{mark}"
