#!/bin/sh
# Writes a new key to the stack's Vault: rotate.sh [local]. The key comes from GEMINI_API_KEY, a prompt or standard input;
# for the stand-in it is made up.
set -eu
# shellcheck source=examples/compose/stack.sh
. "$(dirname -- "$0")/stack.sh"

read_key "$@"
write_key
