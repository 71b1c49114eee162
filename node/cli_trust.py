"""Whom a command trusts, and how commands that verify say what they found.

`did verify`, `did resolve --trust`, `vc verify` and `audit verify` share all of this: the options,
the five verdicts of `ledger.light`, their words and their exit codes. A verdict is the first that
fits: wrong, cannot tell, too old, right by an expired trust point, valid.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from ledger.errors import UsageError
from ledger.light import TrustPoint, Verdict, format_span, trust_header
from node.checkpoint import Trust
from node.cli_output import F, run_async
from node.light_follow import MAX_AGE_DEFAULT_MS
from node.light_source import Endpoint
from node.light_trust import TrustRoot, load_trust_root

EXIT_BY_VERDICT = {
    Verdict.VALID: 0,
    Verdict.WRONG: 1,
    Verdict.VALID_BUT_EXPIRED_TRUST: 7,
    Verdict.TOO_OLD: 8,
    Verdict.CANNOT_TELL: 9,
}
HEADLINE_BY_VERDICT = {
    Verdict.VALID: "VERIFIED",
    Verdict.WRONG: "NOT VERIFIED",
    Verdict.VALID_BUT_EXPIRED_TRUST: "VERIFIED, BUT BY AN EXPIRED TRUST POINT",
    Verdict.TOO_OLD: "TOO OLD",
    Verdict.CANNOT_TELL: "CANNOT TELL",
}
AGE_SECONDS_MAX = 10**10
ANY_AGE = "any"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


def _read_age(context: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    """Milliseconds; None for any age. Raises click's BadParameter."""
    if text is None or text == ANY_AGE:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= AGE_SECONDS_MAX:
        raise click.BadParameter(f"{text!r} is neither a number of seconds nor {ANY_AGE!r}")
    return int(seconds * 1000)


def _read_moment(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> int | None:
    """Unix ms of a UTC time without fractions. Raises click's BadParameter."""
    if text is None:
        return None
    try:
        if _TIME.fullmatch(text) is None:
            raise ValueError
        moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a time such as 2026-01-31T12:00:00Z") from error
    return int(moment.timestamp()) * 1000


def trust_option(*, required: bool) -> Callable[[F], F]:
    """Adds `--trust FILE`."""
    return click.option(
        "--trust",
        "trust_path",
        envvar="ZYNK_TRUST",
        required=required,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Where trust begins: a genesis file, a trust point, or what zynk light keeps "
        "(or ZYNK_TRUST).",
    )


def age_option(name: str, default: str, what: str) -> Callable[[F], F]:
    """Adds an option of a largest age, its parameter in milliseconds, None for any."""
    return click.option(
        name,
        default=default,
        show_default=True,
        metavar="SECONDS|any",
        callback=_read_age,
        help=f"How old {what} may be.",
    )


period_option = click.option(
    "--trusting-period",
    "trusting_period_s",
    type=click.IntRange(min=1),
    metavar="SECONDS",
    help="How old the trust point may be. Default: as zynk light has it.",
)
at_option = click.option(
    "--at",
    "at_ms",
    metavar="TIME",
    callback=_read_moment,
    help="Judge as at this time (UTC), not as at this machine's clock.",
)


def follow_options(*, home: Path, keeps: str, interval_s: float) -> Callable[[F], F]:
    """Adds the options of a command that follows a chain (`node.light_follow`): trust_path, home,
    interval and max_age (seconds), trusting_period (seconds or None)."""
    options = (
        trust_option(required=True),
        click.option(
            "--home",
            type=click.Path(path_type=Path),
            default=home,
            show_default=True,
            help=f"Where {keeps} kept, one folder a chain.",
        ),
        click.option(
            "--interval", default=interval_s, show_default=True, help="Seconds between rounds."
        ),
        click.option(
            "--max-age",
            default=MAX_AGE_DEFAULT_MS // 1000,
            show_default=True,
            help="Seconds that a newest header may be old.",
        ),
        click.option(
            "--trusting-period",
            type=click.IntRange(min=1),
            help="Seconds; must be shorter than the chain's unbonding time. Default: 2/3 of that.",
        ),
    )

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


header_rpc_option = click.option(
    "--rpc",
    "rpc_url",
    metavar="URL",
    help="Only with a trust point file: the node that has its header, which is checked.",
)


def load_trust(
    path: Path,
    rpc_url: str | None,
    *,
    trusting_period_s: int | None = None,
    at_ms: int | None = None,
) -> Trust:
    """Read a trust file (`node.light_trust`). The header of a trust point file is asked of
    `rpc_url` and believed only if it has the hash. Raises UsageError, InvalidInputError,
    RpcError, RpcConnectionError."""
    period_ms = None if trusting_period_s is None else trusting_period_s * 1000
    root = load_trust_root(path, period_ms)
    point = root.point
    if point is None:
        if rpc_url is None:
            raise UsageError(
                "a trust point file has no validators: its header must be asked for",
                expected="--rpc URL, or --trust with the trusted.bin that zynk light keeps",
                got=str(path),
            )
        point = run_async(_fetch_point(rpc_url, root))
    return Trust(point=point, source=str(path), at_ms=at_ms)


def load_trust_if(path: Path | None, rpc_url: str) -> Trust | None:
    """The same for commands that verify by the way: that the trust point has expired is said on
    standard error, and they go on."""
    if path is None:
        return None
    trust = load_trust(path, rpc_url)
    if trust.point.is_expired(trust.now_ms()):
        period = format_span(trust.point.trusting_period_ms)
        click.echo(f"Beware: {path} is past its trusting period of {period}.", err=True)
    return trust


async def _fetch_point(url: str, root: TrustRoot) -> TrustPoint:
    source = Endpoint(url)
    try:
        data = await source.light_block(root.height)
    finally:
        await source.close()
    return trust_header(data, root.root, root.chain_id, trusting_period_ms=root.trusting_period_ms)


def conclude(verdict: Verdict, about: Sequence[str], *, as_json: bool, err: bool = False) -> None:
    """The last lines, unless that was JSON, and the exit code. Raises click's Exit unless VALID."""
    if not as_json:
        for what in about:
            click.echo(f"{HEADLINE_BY_VERDICT[verdict]}: {what}", err=err)
    if verdict is not Verdict.VALID:
        raise click.exceptions.Exit(EXIT_BY_VERDICT[verdict])
