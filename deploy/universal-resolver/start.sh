#!/bin/sh
# The driver: a light client on 0.0.0.0:8080, for a network of containers and nobody else.
#   ZYNK_PRIMARY    the endpoint that is asked first, such as https://node.example
#   ZYNK_WITNESSES  further endpoints, separated by spaces; with one, a lie needs both
#   ZYNK_TRUST      a genesis file or trust point, if not the one in the image
#   ZYNK_LISTEN     another HOST:PORT
set -eu
: "${ZYNK_PRIMARY:?set ZYNK_PRIMARY to an RPC endpoint of the network}"
set -- --trust "${ZYNK_TRUST:-/etc/zynk/genesis.json}" --primary "$ZYNK_PRIMARY" \
    --listen "${ZYNK_LISTEN:-0.0.0.0:8080}"
for witness in ${ZYNK_WITNESSES:-}; do
    set -- "$@" --witness "$witness"
done
exec "${ZYNK_BIN:-/opt/zynk/bin/zynk}" light "$@"
