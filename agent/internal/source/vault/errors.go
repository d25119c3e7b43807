package vault

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/agent/internal/source"
)

// tlsError is a failure that another set of certificates may mend.
type tlsError struct{ failure *source.Error }

func (e tlsError) Error() string { return e.failure.Error() }
func (e tlsError) Unwrap() error { return e.failure }

func certificateError(err error) bool {
	_, ok := errors.AsType[tlsError](err)
	return ok
}

// failure says what went wrong with a request, in our own words: what Vault or a proxy answered is never passed on.
func failure(ctx context.Context, what string, response *api.Response, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if e, ok := errors.AsType[*api.ResponseError](err); ok {
		kind, reason := classify(e)
		return &source.Error{Kind: kind, Reason: what + ": " + reason, RetryAfter: retryAfter(response)}
	}
	reason, isTLS := unreached(err)
	e := &source.Error{Kind: source.Unavailable, Reason: what + ": " + reason}
	if isTLS {
		return tlsError{e}
	}
	return e
}

// classify follows developer.hashicorp.com/vault/api-docs#http-status-codes.
func classify(e *api.ResponseError) (source.Kind, string) {
	switch code := e.StatusCode; {
	case code == http.StatusForbidden:
		return source.Denied, "permission denied"
	case code == http.StatusNotFound:
		return source.NotFound, "there is nothing"
	case code == http.StatusTooManyRequests:
		return source.RateLimited, "Vault limits the rate of requests"
	case code == http.StatusServiceUnavailable && says(e, "sealed"):
		return source.Sealed, "Vault is sealed: unseal it"
	case code == http.StatusBadRequest:
		return source.Invalid, "Vault refuses the request (HTTP 400)"
	case code == http.StatusMethodNotAllowed:
		return source.Invalid, "nothing can be read there (HTTP 405)"
	default:
		return source.Unavailable, fmt.Sprintf("Vault answers with HTTP %d", code)
	}
}

func says(e *api.ResponseError, word string) bool {
	for _, s := range e.Errors {
		if !e.RawError && strings.Contains(strings.ToLower(s), word) {
			return true
		}
	}
	return false
}

// unreached says why there was no answer, and whether that is about certificates.
func unreached(err error) (reason string, isTLS bool) {
	if e, ok := errors.AsType[*url.Error](err); ok {
		if e.Timeout() {
			return "no answer in time", false
		}
		err = e.Err
	}
	if e, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return e.Error() + ": set VAULT_CACERT to the authority's certificate", true
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return e.Error(), true
	}
	if e, ok := errors.AsType[tls.AlertError](err); ok {
		return e.Error() + ": check VAULT_CLIENT_CERT and VAULT_CLIENT_KEY", true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		return "what answers speaks no TLS: check the scheme of VAULT_ADDR", true
	}
	return err.Error(), strings.Contains(err.Error(), "tls: ")
}

func retryAfter(r *api.Response) time.Duration {
	if r == nil {
		return 0
	}
	header := r.Header.Get("Retry-After")
	if seconds, err := strconv.Atoi(header); err == nil && seconds > 0 {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// about gives err the path that it is about and, for what a person can mend, says how.
func about(path string, err error, mend func(*source.Error)) error {
	e, ok := errors.AsType[*source.Error](err)
	if !ok {
		return err
	}
	e.Path = path
	if mend != nil {
		mend(e)
	}
	return err
}
