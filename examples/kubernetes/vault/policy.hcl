# All that the agent may do beyond Vault's default policy: read one secret. For KV version 1 leave data/ out.
path "secret/data/gemini" {
  capabilities = ["read"]
}
