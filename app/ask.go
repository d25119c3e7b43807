package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/keyturn/keyturn/app/internal/server"
)

const (
	// patience bounds what is asked of a running app.
	patience = 3 * time.Second
	// maxAnswer bounds what is read of its answer.
	maxAnswer = 1 << 20
)

// health asks the app that listens at APP_LISTEN, for images that have no shell to ask with.
func health(ctx context.Context, c Config) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	host, port, _ := net.SplitHostPort(c.Listen)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return errors.New("APP_LISTEN is no address to ask at")
	}
	direct := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // no proxy
	response, err := direct.Do(request)
	if err != nil {
		return errors.New("no app answers at APP_LISTEN: start it, or set APP_LISTEN as it is set there")
	}
	defer response.Body.Close()
	var body server.Readiness
	if json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&body) != nil {
		return errors.New("what answers at APP_LISTEN is no app: set APP_LISTEN as it is set there")
	}
	if !body.Ready {
		return errors.New("not ready: " + body.Reason)
	}
	return nil
}
