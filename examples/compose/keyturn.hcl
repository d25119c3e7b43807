# All that the agent may do beyond Vault's default policy: read one secret.
path "secret/data/gemini" {
  capabilities = ["read"]
}
