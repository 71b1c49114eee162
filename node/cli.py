"""`zynk`: the command line.

Exit codes: 0 done; 1 a check failed or the network refused; 2 wrong usage or a missing file;
3 no answer from the node; 4 a write failed or the store is damaged; 5 a light client found an
attack; 6 the node must be upgraded; 7 to 9 verdicts (`node.cli_trust`); 130 interrupted.
Every command takes `--json`: one JSON object on the last line of standard output; those that keep
running print it when they are up.
"""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Mapping
from typing import Any

import click

from ledger.errors import DurabilityError, InvalidInputError, UsageError, ZynkError
from ledger.light import verdict_of
from ledger.upgrade import UpgradeNeeded
from node.cli_output import print_error
from node.cli_trust import EXIT_BY_VERDICT
from node.light_follow import AttackFound
from rpc.errors import RpcConnectionError

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_NO_ANSWER = 3
EXIT_DURABILITY = 4
EXIT_ATTACK = 5
EXIT_UPGRADE = 6
EXIT_INTERRUPTED = 130


COMMANDS = {
    "init": "node.cli_node:init",
    "start": "node.cli_node:start",
    "status": "node.cli_node:status",
    "inspect": "node.cli_node:inspect",
    "guard": "node.cli_node:guard",
    "devnet": "node.cli_network:devnet",
    "demo": "node.cli_network:demo",
    "genesis": "node.cli_genesis:genesis",
    "keys": "node.cli_keys:keys",
    "tx": "node.cli_tx:tx",
    "stake": "node.cli_validator:OPERATOR_COMMANDS",
    "gov": "node.cli_gov:gov",
    "evidence": "node.cli_evidence:evidence",
    "did": "node.cli_did:did",
    "audit": "node.cli_audit:audit",
    "vc": "node.cli_vc:vc",
    "light": "node.cli_light:light",
    "bench": "node.cli_bench:bench",
}
"""Command -> where it is: a command's module is imported when it is asked for."""


class LazyGroup(click.Group):
    """A group whose commands cost nothing until they are used."""

    def __init__(self, *args: Any, places: Mapping[str, str], **options: Any) -> None:
        super().__init__(*args, **options)
        self._places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._places:
            return None
        module, name = self._places[cmd_name].split(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=LazyGroup, places=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="zynk-node", prog_name="zynk")
def cli() -> None:
    """Run and use a Zynk node: identities and an audit log that nobody has to believe."""


def main() -> None:
    """Entry point: errors become one clear line and an exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a command that keeps running shows its lines
    try:
        result = cli.main(standalone_mode=False)
        sys.exit(result if isinstance(result, int) else 0)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except AttackFound as error:
        print_error(error)
        sys.exit(EXIT_ATTACK)
    except RpcConnectionError as error:
        print_error(error)
        sys.exit(EXIT_NO_ANSWER)
    except DurabilityError as error:
        print_error(error)
        sys.exit(EXIT_DURABILITY)
    except UpgradeNeeded as error:
        print_error(error)
        sys.exit(EXIT_UPGRADE)
    except UsageError as error:
        print_error(error)
        sys.exit(EXIT_USAGE)
    except InvalidInputError as error:
        print_error(error)
        sys.exit(EXIT_BY_VERDICT[verdict_of(error)])
    except ZynkError as error:
        print_error(error)
        sys.exit(EXIT_REFUSED)
