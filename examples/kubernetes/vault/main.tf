# The same as setup.sh. Vault's address and token come from VAULT_ADDR and VAULT_TOKEN.
terraform {
  required_version = ">= 1.5"
  required_providers {
    vault = {
      source  = "hashicorp/vault"
      version = ">= 4.0"
    }
  }
}

variable "namespace" {
  description = "The namespace of the pods."
  type        = string
  default     = "keyturn"
}

variable "service_account" {
  description = "The service account of the pods."
  type        = string
  default     = "keyturn"
}

variable "role" {
  description = "The agent's AGENT_AUTH_ROLE, and the name of the policy."
  type        = string
  default     = "keyturn"
}

variable "kubernetes_host" {
  description = "Where Vault reaches the cluster's API server."
  type        = string
  default     = "https://kubernetes.default.svc"
}

variable "kubernetes_ca_cert" {
  description = "The authority of the API server's certificate, in PEM; null for a Vault that runs in the cluster."
  type        = string
  default     = null
}

variable "token_reviewer_jwt" {
  description = "The token of the service account in reviewer.yaml; null for a Vault that runs in the cluster."
  type        = string
  default     = null
  sensitive   = true
}

resource "vault_policy" "keyturn" {
  name   = var.role
  policy = file("${path.module}/policy.hcl")
}

resource "vault_auth_backend" "kubernetes" {
  type = "kubernetes"
}

resource "vault_kubernetes_auth_backend_config" "cluster" {
  backend            = vault_auth_backend.kubernetes.path
  kubernetes_host    = var.kubernetes_host
  kubernetes_ca_cert = var.kubernetes_ca_cert
  token_reviewer_jwt = var.token_reviewer_jwt
}

resource "vault_kubernetes_auth_backend_role" "keyturn" {
  backend                          = vault_auth_backend.kubernetes.path
  role_name                        = var.role
  bound_service_account_names      = [var.service_account]
  bound_service_account_namespaces = [var.namespace]
  audience                         = "vault"
  token_policies                   = [vault_policy.keyturn.name]
  token_ttl                        = 20 * 60
  token_max_ttl                    = 4 * 60 * 60
}
