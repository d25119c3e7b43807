#!/bin/sh
# Runs in the container vault-init: gives Vault the agent's policy and role, and the agent the role's credentials. Run it
# again at any time: credentials that are still good stay, and so does the agent's login.
set -eu
cd /run/keyturn/credentials
umask 0337 # the owner and the agent's group read, nobody writes

# Vault in dev mode answers before its root token lies in $HOME and secret/ is mounted.
deadline=$(($(date +%s) + 60))
until vault secrets list 2>/dev/null | grep -q '^secret/'; do
  [ "$(date +%s)" -lt "$deadline" ] || { vault secrets list; exit 1; }
  sleep 0.1
done

vault policy write keyturn /keyturn/keyturn.hcl >/dev/null
vault auth list | grep -q '^approle/' || vault auth enable approle >/dev/null
vault write auth/approle/role/keyturn token_policies=keyturn token_ttl=20m token_max_ttl=4h >/dev/null
role_id=$(vault read -field=role_id auth/approle/role/keyturn/role-id)

if [ "$(cat role-id 2>/dev/null)" = "$role_id" ] &&
  [ -n "$(vault write auth/approle/role/keyturn/secret-id/lookup secret_id=@secret-id 2>/dev/null)" ]; then
  echo "vault-init: the agent's credentials are good and stay"
  exit 0
fi
rm -f role-id.new secret-id.new
printf %s "$role_id" >role-id.new
vault write -f -field=secret_id auth/approle/role/keyturn/secret-id >secret-id.new
mv -f role-id.new role-id
mv -f secret-id.new secret-id
echo "vault-init: the agent has new credentials"
