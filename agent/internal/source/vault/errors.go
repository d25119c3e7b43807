package vault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/agent/internal/source"
)

// maxRetryAfter bounds how long one answer can silence the agent.
const maxRetryAfter = 5 * time.Minute

// failure is a *source.Error in the making, with what is only known in here.
type failure struct {
	kind       source.Kind
	path       string
	reason     string
	retryAfter time.Duration
	// status is Vault's, where what it means depends on what was asked; kind is empty then. Else 0.
	status int
	// messages is what Vault said. It may quote what was sent: look for phrases in it, and show none of it.
	messages string
	// deleted is what a 404 of KV version 2 says of the version that was asked for; nil for any other failure.
	deleted *metadata
	// certificate: the connection failed over one, so a client that reads the files anew may fare better.
	certificate bool
}

// Error returns the reason.
func (f *failure) Error() string { return f.reason }

// as says what a failure means for whoever asked.
func (f *failure) as(kind source.Kind, path, format string, args ...any) *failure {
	f.kind, f.path, f.reason = kind, path, fmt.Sprintf(format, args...)
	return f
}

func fail(kind source.Kind, path, format string, args ...any) *failure {
	return (&failure{}).as(kind, path, format, args...)
}

func unavailable(format string, args ...any) *failure {
	return fail(source.Unavailable, "", format, args...)
}

func unauthenticated(format string, args ...any) *failure {
	return fail(source.Unauthenticated, "", format, args...)
}

func notVault() *failure {
	return unavailable("what answers at VAULT_ADDR is not Vault: check the address, and any proxy on the way")
}

// undecided returns err as a failure whose meaning depends on what was asked.
func undecided(err error) (*failure, bool) {
	f, ok := errors.AsType[*failure](err)
	return f, ok && f.kind == ""
}

func kindOf(err error) source.Kind {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.kind
	}
	return ""
}

// saysDead reports whether Vault said in so many words that the token is no good, as it does from version 1.17 on.
func saysDead(err error) bool {
	f, ok := errors.AsType[*failure](err)
	return ok && strings.Contains(f.messages, "invalid token")
}

// outward turns err into what package source promises: ctx's own error or an *Error.
func outward(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	f, ok := errors.AsType[*failure](err)
	switch {
	case !ok: // nothing in here makes another; its text is not ours to show
		f = unavailable("Vault can't be asked")
	case f.kind == "":
		f = f.as(source.Unavailable, f.path, "Vault refuses the request (HTTP %d)", f.status)
	}
	return &source.Error{Kind: f.kind, Path: f.path, Reason: f.reason, RetryAfter: f.retryAfter}
}

// failed judges a request that brought no good answer.
func (c *client) failed(response *api.Response, err error) *failure {
	said, ok := errors.AsType[*api.ResponseError](err)
	if !ok {
		return c.unreached(err)
	}
	f := &failure{messages: strings.Join(said.Errors, "\n")}
	if said.RawError {
		f.messages = ""
	}
	known := !said.RawError && said.Errors != nil
	if said.StatusCode == http.StatusNotFound && !known {
		known, f.deleted = nothingThere(response)
	}
	switch code := said.StatusCode; {
	case code == http.StatusTooManyRequests:
		f.as(source.RateLimited, "", "Vault limits the rate of requests: raise its quota, or AGENT_POLL_INTERVAL")
	case !known:
		f.as(source.Unavailable, "", "%s (HTTP %d)", notVault().reason, code)
	case code == http.StatusServiceUnavailable && strings.Contains(f.messages, "sealed"):
		f.as(source.Sealed, "", "Vault is sealed: unseal it")
	case code == http.StatusPreconditionFailed:
		f.as(source.Unavailable, "", "this node of Vault lags behind (HTTP 412): it catches up by itself")
	case code >= 500 || code == 472 || code == 473:
		f.as(source.Unavailable, "", "Vault can't answer (HTTP %d): its own log says why", code)
	default:
		f.status = code
	}
	f.retryAfter = retryAfter(response.Header)
	return f
}

// nothingThere reads the body of a 404 that brought no errors: Vault sends a whole answer where it has a warning, or the
// metadata of a version that was deleted.
func nothingThere(response *api.Response) (isVaults bool, deleted *metadata) {
	var body struct {
		RequestID *string `json:"request_id"`
		Data      struct{ Metadata *metadata }
	}
	if json.NewDecoder(response.Body).Decode(&body) != nil {
		return false, nil
	}
	return body.RequestID != nil, body.Data.Metadata
}

// unreached says why nobody answered. It repeats no text that came over the network.
func (c *client) unreached(err error) *failure {
	if f := certificateFailure(err); f != nil {
		f.certificate = true
		return f
	}
	operation, _ := errors.AsType[*net.OpError](err)
	_, isDNS := errors.AsType[*net.DNSError](err)
	_, noTLS := errors.AsType[tls.RecordHeaderError](err)
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, errTooLong):
		return unavailable("the answer is longer than 4 MiB: what answers at VAULT_ADDR is not Vault")
	case noTLS, strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return unavailable("what answers at VAULT_ADDR speaks no TLS: check its scheme and port")
	case isDNS:
		return unavailable("the name in VAULT_ADDR can't be resolved: check it, and DNS")
	case errors.Is(err, context.DeadlineExceeded), isNet && timeout.Timeout():
		return unavailable("no answer from Vault within %v: check VAULT_ADDR and the network", c.timeout)
	case operation != nil && operation.Op == "proxyconnect":
		return unavailable("no connection to the proxy: check VAULT_PROXY_ADDR and HTTPS_PROXY")
	case operation != nil && operation.Op == "dial":
		return unavailable("no connection to Vault at %v: check VAULT_ADDR, and that Vault runs", operation.Addr)
	}
	return unavailable("the connection to Vault broke: check the network, and whether VAULT_ADDR is http or https")
}

func certificateFailure(err error) *failure {
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, hostname := errors.AsType[x509.HostnameError](err)
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	_, unverified := errors.AsType[*tls.CertificateVerificationError](err)
	operation, _ := errors.AsType[*net.OpError](err)
	switch {
	case unknown:
		return unavailable("Vault's certificate is signed by an unknown authority: name the authority's in VAULT_CACERT")
	case hostname:
		return unavailable("Vault's certificate is for another host: mend VAULT_ADDR or VAULT_TLS_SERVER_NAME")
	case isInvalid && invalid.Reason == x509.Expired:
		return unavailable("Vault's certificate has expired or isn't valid yet: renew it, or set the clock")
	case isInvalid, unverified:
		return unavailable("Vault's certificate isn't valid: renew it, or mend VAULT_CACERT")
	case operation != nil && operation.Op == "remote error":
		return unavailable("Vault refuses the TLS connection: check VAULT_CLIENT_CERT, and that it hasn't expired")
	}
	return nil
}

// retryAfter reads Retry-After, which is in seconds or a date.
func retryAfter(h http.Header) time.Duration {
	var wait time.Duration
	text := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil {
		wait = time.Duration(min(seconds, int(maxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		wait = time.Until(at)
	}
	return min(max(wait, 0), maxRetryAfter)
}

func isCertificate(err error) bool {
	f, ok := errors.AsType[*failure](err)
	return ok && f.certificate
}
