#!/bin/sh
# Lets the pods of one service account log in to Vault and read one secret. Run it again at any time.
#
#   VAULT_ADDR and VAULT_TOKEN say which Vault, and who you are there; kubectl's current context says which cluster.
#   NAMESPACE, SERVICE_ACCOUNT   whose pods (keyturn, keyturn)
#   ROLE                         the agent's AGENT_AUTH_ROLE, and the name of the policy ($SERVICE_ACCOUNT)
#   VAULT_IN_CLUSTER=true        Vault runs in this cluster; without it Vault is given an account to ask the cluster with
#
# main.tf is the same for Terraform.
set -eu
here=$(dirname "$0")
namespace=${NAMESPACE:-keyturn}
account=${SERVICE_ACCOUNT:-keyturn}
role=${ROLE:-$account}

vault policy write "$role" "$here/policy.hcl"
vault auth list | grep -q '^kubernetes/' || vault auth enable kubernetes

if [ "${VAULT_IN_CLUSTER:-}" = true ]; then
  vault write auth/kubernetes/config kubernetes_host=https://kubernetes.default.svc
else
  kubectl apply -f "$here/reviewer.yaml"
  cluster() { kubectl config view --raw --minify --flatten -o jsonpath="{.clusters[0].cluster.$1}"; }
  until token=$(kubectl -n kube-system get secret vault-reviewer -o jsonpath='{.data.token}') && [ -n "$token" ]; do
    sleep 0.2 # the cluster fills it in
  done
  # By stdin: what is in the arguments of a program, everybody on the machine can read.
  vault write auth/kubernetes/config - <<EOF
{
  "kubernetes_host": "$(cluster server)",
  "kubernetes_ca_cert": "$(cluster certificate-authority-data | base64 -d | sed 's/$/\\n/' | tr -d '\n')",
  "token_reviewer_jwt": "$(echo "$token" | base64 -d)"
}
EOF
fi

vault write "auth/kubernetes/role/$role" \
  bound_service_account_names="$account" bound_service_account_namespaces="$namespace" \
  audience=vault token_policies="$role" token_ttl=20m token_max_ttl=4h
