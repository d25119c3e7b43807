package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/keyturn/keyturn/app/internal/server"
)

// patience bounds what is asked of a running app.
const patience = 3 * time.Second

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
		return err
	}
	direct := &http.Transport{DisableKeepAlives: true} // a proxy of the environment's has no business here
	response, err := direct.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("no app answers at APP_LISTEN: %w", err)
	}
	defer response.Body.Close()
	var body server.Readiness
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&body); err != nil {
		return fmt.Errorf("what answers at APP_LISTEN is no app: %w", err)
	}
	if !body.Ready {
		return errors.New("not ready: " + body.Reason)
	}
	return nil
}
