package gemini

import (
	"cmp"
	"errors"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// CheckEndpoint reports why raw can't be the base URL of the Gemini API, or nil. It must be an absolute http or https URL
// without user, query, fragment or percent escapes; a path is a prefix. Plain http is only for loopback (localhost,
// 127.0.0.0/8, ::1) unless allowHTTP is set. No error quotes raw, since a secret may have been pasted into it.
func CheckEndpoint(raw string, allowHTTP bool) error {
	_, err := parseEndpoint(raw, allowHTTP)
	return err
}

func parseEndpoint(raw string, allowHTTP bool) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Opaque != "" || u.Hostname() == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, errors.New("gemini: the base URL is not an absolute http or https URL; write it as https://host")
	}
	port, err := strconv.ParseUint(cmp.Or(u.Port(), "443"), 10, 16)
	switch {
	case u.User != nil:
		return nil, errors.New("gemini: the base URL has a user or a password; leave them out")
	case strings.ContainsRune(raw, '?'):
		return nil, errors.New("gemini: the base URL has a query; leave out everything from the '?' on")
	case strings.ContainsRune(raw, '#'):
		return nil, errors.New("gemini: the base URL has a fragment; leave out everything from the '#' on")
	case strings.ContainsRune(raw, '%'):
		return nil, errors.New("gemini: the base URL has percent escapes; use a host and a path without them")
	case err != nil || port == 0 || strings.HasSuffix(u.Host, ":"):
		return nil, errors.New("gemini: the base URL's port is not a number from 1 to 65535")
	case u.Scheme == "http" && !allowHTTP && !isLoopback(u.Hostname()):
		return nil, errors.New("gemini: the base URL is plain http to a host that is not loopback, so the key would cross " +
			"the network in clear text; use https, or allow it by name (APP_ALLOW_HTTP=true)")
	}
	return u, nil
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// hostPort returns u's host in the one form that two URLs of the same endpoint share.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return strings.ToLower(u.Hostname()) + " " + port
}
