"""`zynk`: the command line.

Exit codes: 0 done; 1 a check failed or the network refused; 2 wrong usage or a missing file;
3 no answer from the node; 4 a write failed or the store is damaged; 5 a light client found an
attack; 6 the node must be upgraded; 130 interrupted.
Every command takes `--json`: one JSON object on the last line of standard output; those that keep
running print it when they are up.
"""

from __future__ import annotations

import io
import sys

import click

from ledger.errors import DurabilityError, UsageError, ZynkError
from ledger.upgrade import UpgradeNeeded
from node import (
    cli_audit,
    cli_bench,
    cli_did,
    cli_evidence,
    cli_genesis,
    cli_gov,
    cli_keys,
    cli_light,
    cli_network,
    cli_node,
    cli_tx,
    cli_validator,
)
from node.cli_output import print_error
from node.light_follow import AttackFound
from rpc.errors import RpcConnectionError

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_NO_ANSWER = 3
EXIT_DURABILITY = 4
EXIT_ATTACK = 5
EXIT_UPGRADE = 6
EXIT_INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="zynk-node", prog_name="zynk")
def cli() -> None:
    """Run and use a Zynk node: identities and an audit log that nobody has to believe."""


cli.add_command(cli_node.init)
cli.add_command(cli_node.start)
cli.add_command(cli_node.status)
cli.add_command(cli_node.inspect)
cli.add_command(cli_node.guard)
cli.add_command(cli_network.devnet)
cli.add_command(cli_network.demo)
cli.add_command(cli_genesis.genesis)
cli.add_command(cli_keys.keys)
cli.add_command(cli_tx.tx)
cli.add_command(cli_validator.OPERATOR_COMMANDS)
cli.add_command(cli_gov.gov)
cli.add_command(cli_evidence.evidence)
cli.add_command(cli_did.did)
cli.add_command(cli_audit.audit)
cli.add_command(cli_light.light)
cli.add_command(cli_bench.bench)


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
    except ZynkError as error:
        print_error(error)
        sys.exit(EXIT_REFUSED)
