#!/bin/sh
# Takes the stack down, with its networks and volumes. The images stay.
set -eu
# shellcheck source=examples/compose/stack.sh
. "$(dirname -- "$0")/stack.sh"

compose down -v --remove-orphans
