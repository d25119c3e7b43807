# Sourced by the scripts beside it. Each takes the word "local" for the stack with the Gemini stand-in.
# shellcheck shell=sh

cd -- "$(dirname -- "$0")/../.." || exit
case ${1-} in
  '') files='-f docker-compose.yml' ;;
  local) files='-f docker-compose.yml -f examples/compose/local.yml' ;;
  *) echo "usage: $0 [local]" >&2 && exit 2 ;;
esac

KEYTURN_VERSION=${KEYTURN_VERSION:-$(git describe --tags --always --dirty 2>/dev/null || echo devel)}
KEYTURN_COMMIT=${KEYTURN_COMMIT:-$(git rev-parse HEAD 2>/dev/null || true)}
export KEYTURN_VERSION KEYTURN_COMMIT

# compose runs whichever Compose there is, or the one that COMPOSE names.
if [ -z "${COMPOSE-}" ]; then
  COMPOSE=docker-compose
  docker compose version >/dev/null 2>&1 && COMPOSE='docker compose'
fi
compose() {
  # shellcheck disable=SC2086 # both are lists of words
  $COMPOSE $files "$@"
}

# read_key sets key, from GEMINI_API_KEY, a prompt that doesn't echo, or standard input. For the stand-in it makes one up,
# unless there is one that the stand-in accepts.
read_key() {
  key=${GEMINI_API_KEY-}
  if [ "${1-}" = local ]; then
    case $key in
      local-*) ;;
      *) key=local-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n') ;;
    esac
  elif [ -z "$key" ] && [ -t 0 ]; then
    trap 'stty echo' EXIT
    stty -echo
    printf 'Gemini API key: ' >&2
    IFS= read -r key
    stty echo
    trap - EXIT
    echo >&2
  elif [ -z "$key" ]; then
    IFS= read -r key || [ -n "$key" ]
  fi
  [ -n "$key" ] || { echo "there is no key: set GEMINI_API_KEY, or give it on standard input" >&2 && exit 1; }
}

# write_key puts key into Vault. It goes through a pipe: arguments and environments can be read by others.
write_key() {
  version=$(printf %s "$key" | compose exec -T vault vault kv put -mount=secret -field=version gemini api_key=-)
  echo "secret/gemini has version $version"
}
