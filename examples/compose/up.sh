#!/bin/sh
# Builds and starts the stack, gives Vault a key if it has none, and waits until the app serves: up.sh [local]
set -eu
# shellcheck source=examples/compose/stack.sh
. "$(dirname -- "$0")/stack.sh"

compose build
compose up -d agent
if compose exec -T vault vault kv get -mount=secret -field=api_key gemini >/dev/null 2>&1; then
  echo "Vault has a key, which stays: rotate it with examples/compose/rotate.sh${1:+ $1}"
else
  read_key "$@"
  write_key
fi
compose up -d
tries=60
until compose exec -T app /keyturn-app health >/dev/null 2>&1; do
  tries=$((tries - 1))
  [ "$tries" -gt 0 ] || { compose logs --tail=20 agent app >&2 && exit 1; }
  sleep 0.5
done
cat <<DONE

The app serves. Ask it, rotate the key, and ask again: the generation grows.

  curl -s http://127.0.0.1:${KEYTURN_PORT:-8080}/v1/generate -H 'Content-Type: application/json' -d '{"prompt":"Say hello."}'
  examples/compose/rotate.sh${1:+ $1}

make down takes it down.
DONE
