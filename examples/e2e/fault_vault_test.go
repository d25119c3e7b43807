package e2e

import (
	"net/http"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/examples/vaulttest"
)

// vaultFaults happen to Vault, or to what the agent may do there.
var vaultFaults = []fault{
	{
		name: "sealed", did: "Vault is sealed, and unsealed", setting: setting{ownVault: true},
		strike: func(w *world) { w.try(w.vault.Seal(w.t.Context())) },
		mend:   func(w *world) { w.try(w.vault.Unseal(w.t.Context())) },
	},
	{
		name: "hung", did: "Vault takes connections and answers nothing (SIGSTOP)", setting: setting{ownVault: true}, felt: timeout,
		strike: func(w *world) { w.try(w.vault.Pause()) },
		mend:   func(w *world) { w.try(w.vault.Resume()) },
	},
	{
		name: "killed", did: "Vault is killed; another is started and filled", setting: setting{ownVault: true},
		strike: func(w *world) { w.try(w.vault.Kill()) },
		mend:   func(w *world) { w.anotherVault(); w.fill() },
	},
	{
		name: "restarted empty", did: "Vault is killed; another knows neither token nor secret, until it is filled",
		setting: setting{ownVault: true}, lines: 4,
		strike: func(w *world) { w.try(w.vault.Kill()); w.anotherVault() },
		mend:   func(w *world) { w.fill() },
	},
	{
		name: "token revoked", did: "the agent's token is revoked; it logs in again by itself", setting: setting{appRole: true}, felt: never,
		strike: func(w *world) { w.logOut() },
		proof:  func(w *world) { w.loggedIn(2) },
	},
	{
		name: "token ended in an outage", did: "the agent's token ends while nothing of Vault's comes through", setting: setting{appRole: true, before: (*world).shortLived},
		strike: func(w *world) {
			w.front.answer(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		},
		mend: func(w *world) { w.front.answer(nil); w.loggedIn(2) },
	},
	{
		name: "given token revoked", did: "the token in the file is revoked, and made again",
		strike: func(w *world) { w.try(w.vault.Client().Auth().Token().RevokeTree(w.token)) },
		mend:   func(w *world) { w.makeToken() },
	},
	{
		name: "policy removed", did: "the policy is deleted, and written again",
		strike: func(w *world) { w.try(w.vault.Client().Sys().DeletePolicy(w.policy)) },
		mend:   func(w *world) { allow(w.t, w.vault, w.policy, w.secret) },
	},
	{
		name: "role deleted", did: "the AppRole and its tokens are deleted, and it is made again", setting: setting{appRole: true},
		strike: func(w *world) {
			must[*api.Secret](w.t)(w.vault.Client().Logical().Delete(w.role))
			w.logOut()
		},
		mend: func(w *world) {
			write(w.t, w.vault, w.role, map[string]any{"token_policies": w.policy, "token_ttl": "1h"})
			id := must[*api.Secret](w.t)(w.vault.Client().Logical().Read(w.role + "/role-id")).Data["role_id"].(string)
			rewrite(w.t, w.roleID, id)
			w.newSecretID()
		},
	},
	{
		name: "secret-id expired", did: "the secret-id's time is over, and the token is gone; then its file holds another", setting: setting{appRole: true},
		strike: func(w *world) {
			w.expireSecretID()
			w.logOut()
		},
		mend: func(w *world) { w.newSecretID() },
	},
	{
		name: "version deleted", did: "the newest version of the secret is deleted, and undeleted",
		strike: func(w *world) { w.try(w.vault.Client().KVv2("secret").Delete(w.t.Context(), w.secret)) },
		mend:   func(w *world) { w.try(w.vault.Client().KVv2("secret").Undelete(w.t.Context(), w.secret, []int{1})) },
	},
	{
		name: "empty value", did: "the newest version holds an empty key, until the next does better",
		strike: func(w *world) { put(w.t, w.vault, w.secret, map[string]any{"k": ""}) },
		mend:   func(w *world) { w.put() },
	},
	{
		name: "malformed value", did: "the newest version holds a key with a line break in it",
		strike: func(w *world) { put(w.t, w.vault, w.secret, map[string]any{"k": w.current + "\r\nHost: elsewhere"}) },
		mend:   func(w *world) { w.put() },
	},
}

// expireSecretID gives the agent a secret-id whose time is over. Vault takes such a one until it tidies up, as it does by itself
// from time to time.
func (w *world) expireSecretID() {
	w.t.Helper()
	id := write(w.t, w.vault, w.role+"/secret-id", map[string]any{"ttl": "1s"}).Data["secret_id"].(string)
	w.secrets = append(w.secrets, id)
	rewrite(w.t, w.secretID, id)
	eventually(w.t, "Vault has forgotten the secret-id", func() bool {
		write(w.t, w.vault, "auth/"+w.mount+"/tidy/secret-id", nil)
		return write(w.t, w.vault, w.role+"/secret-id/lookup", map[string]any{"secret_id": id}) == nil
	})
}

// shortLived makes the tokens of the agent's role end before a fault does.
func (w *world) shortLived() {
	w.t.Helper()
	write(w.t, w.vault, w.role, map[string]any{"token_policies": w.policy, "token_ttl": (lasts() / 2).String()})
}

// loggedIn waits until the agent has logged in that often.
func (w *world) loggedIn(times int) {
	w.t.Helper()
	eventually(w.t, "the agent logs in", func() bool {
		return w.agent.count(func(l logged) bool { return l.Msg == "logged in to Vault" }) >= times
	})
}

// try ends the test if err is not nil.
func (w *world) try(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// anotherVault starts an empty Vault where the one was that has ended.
func (w *world) anotherVault() {
	w.t.Helper()
	w.vault = vaulttest.ForTest(w.t, vaulttest.Options{Listen: w.vault.Listen, RootToken: w.vault.RootToken})
}

// fill puts into an empty Vault what the agent is used to.
func (w *world) fill() {
	w.t.Helper()
	allow(w.t, w.vault, w.policy, w.secret)
	w.makeToken()
	w.put()
}
