"""How commands speak: tables for people, one JSON line for programs, errors on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from ledger.errors import InvalidInputError, UsageError, ZynkError
from node.event_loop import run
from rpc.client import RpcClient

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

console = Console(highlight=False, soft_wrap=True)


def json_option(command: F) -> F:
    """Adds `--json`."""
    return click.option(
        "--json", "as_json", is_flag=True, help="One JSON object on the last line."
    )(command)


def rpc_option(command: F) -> F:
    """Adds `--rpc URL`."""
    return click.option(
        "--rpc",
        "rpc_url",
        envvar="ZYNK_RPC",
        default="http://127.0.0.1:26657",
        show_default=True,
        help="A node's RPC address (or ZYNK_RPC).",
    )(command)


def show(as_json: bool, data: Mapping[str, Any], rows: Sequence[tuple[str, object]]) -> None:
    """Print `data` as JSON, or `rows` as two columns. Values are never folded: what can be
    copied stays in one piece."""
    if as_json:
        click.echo(json.dumps(data))
        return
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        click.echo(click.style(f"{name:<{width}}", dim=True) + f"  {_printable(value)}")


def show_table(
    as_json: bool,
    data: Mapping[str, Any],
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
) -> None:
    """Print `data` as JSON, or `rows` under headings; nothing is folded or cut."""
    if as_json:
        click.echo(json.dumps(data))
        return
    cells = [[_printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        return "  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip()

    click.echo(click.style(line(columns), dim=True))
    for row in cells:
        click.echo(line(row))


def _printable(value: object) -> str:
    """Text without control characters: a memo or a node's answer must not drive the terminal."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def show_steps(steps: Sequence[tuple[bool, str]], *, err: bool = False) -> None:
    """One line a check: whether it held, and what it was."""
    for is_ok, text in steps:
        mark = click.style("ok    ", fg="green") if is_ok else click.style("FAILED", fg="red")
        click.echo(f"{mark}  {_printable(text)}", err=err)


@contextmanager
def progress_bar(label: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, when that is a terminal; yields a function that adds to it. `unit` is
    "bytes" or what is counted."""
    amount = (
        (DownloadColumn(), TransferSpeedColumn())
        if unit == "bytes"
        else (MofNCompleteColumn(), TextColumn(unit))
    )
    error_console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *amount,
        TimeRemainingColumn(),
        console=error_console,
        transient=True,
        disable=not error_console.is_terminal,
    ) as progress:
        task = progress.add_task(label, total=total)
        yield lambda count: progress.advance(task, count)


def print_error(error: ZynkError) -> None:
    """One line: what is wrong, what was expected and came, whether a retry helps."""
    click.echo(f"zynk: {error}" + (" (trying again may help)" if error.retry else ""), err=True)


def run_async(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine on uvloop."""
    sys.stdout.flush()
    return run(coroutine)


def read_option(read: Callable[[str], T], text: str) -> T:
    """`read(text)` for what a person typed: what is wrong with it is wrong usage. Raises
    UsageError."""
    try:
        return read(text)
    except InvalidInputError as error:
        raise UsageError(error.message, expected=error.expected, got=error.got) from error


def ask_node(url: str, work: Callable[[RpcClient], Awaitable[T]]) -> T:
    """Run `work` with a client of the node at `url`. Raises what it raises; an answer without
    the members it needs becomes InvalidInputError, since the node is somebody else's."""

    async def ask() -> T:
        async with RpcClient(url) as client:
            return await work(client)

    try:
        return run_async(ask())
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise InvalidInputError(
            f"the answer of {url} is malformed", got=f"{type(error).__name__}: {error}"
        ) from error
