package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"

	"github.com/keyturn/keyturn/agent/internal/control"
	"github.com/keyturn/keyturn/agent/internal/observe"
)

// maxAnswer bounds what is read of an agent's answer; thousands of files fit.
const maxAnswer = 16 << 20

const (
	// maxAsking bounds one question to a running agent.
	maxAsking = 3 * time.Second
	// maxPatience bounds health -wait.
	maxPatience = time.Hour
	// lookAgain is the pause after its first question, and doubles up to lookRarely: most agents are ready at once or wait long.
	lookAgain  = 100 * time.Millisecond
	lookRarely = time.Second
)

// patience reads the arguments of "health -wait=DURATION"; ok says that they are that.
func patience(args []string) (wait time.Duration, ok bool) {
	if len(args) != 2 || args[0] != "health" {
		return 0, false
	}
	text, found := strings.CutPrefix(args[1], "-wait=")
	wait, err := time.ParseDuration(text)
	return wait, found && err == nil && wait >= 0 && wait <= maxPatience
}

// alone reads one variable. Whoever asks a running agent needs only the one that leads to it: what is wrong with another, or
// with a file that it names, is not how that agent stands.
func alone(read func(p *problems, v variables) string) (value string, err error) {
	var v variables
	if err := envconfig.Process(prefix, &v); err != nil {
		return "", err
	}
	fillDefaults(&v)
	p := &problems{}
	value = read(p, v)
	if err := p.err(); err != nil {
		return "", usageError{err}
	}
	return value, nil
}

// health asks the agent that listens at AGENT_LISTEN, for images that have no shell to ask with. It asks until every file is
// rendered, or wait is over: one probe that waits costs less than many that don't, and notices at once.
func health(ctx context.Context, wait time.Duration) error {
	listen, err := alone(func(p *problems, v variables) string { return p.address("AGENT_LISTEN", v.Listen) })
	if err != nil {
		return err
	}
	end := time.Now().Add(wait)
	for pause := lookAgain; ; pause = min(2*pause, lookRarely) {
		err := readiness(ctx, listen)
		if err == nil || ctx.Err() != nil || !time.Now().Add(pause).Before(end) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// readiness asks once.
func readiness(ctx context.Context, listen string) error {
	ctx, cancel := context.WithTimeout(ctx, maxAsking)
	defer cancel()
	host, port, _ := net.SplitHostPort(listen)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return errors.New("AGENT_LISTEN is no address to ask at")
	}
	direct := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // no proxy
	response, err := direct.Do(request)
	if err != nil {
		return errors.New("no agent answers at AGENT_LISTEN: start it, or set AGENT_LISTEN as it is set there")
	}
	defer response.Body.Close()
	var body observe.Readiness
	if json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&body) != nil {
		return errors.New("what answers at AGENT_LISTEN is no agent: set AGENT_LISTEN as it is set there")
	}
	if body.Ready {
		return nil
	}
	var waits []string
	for _, f := range body.Files {
		if !f.Rendered {
			waits = append(waits, f.File+": "+f.Waits)
		}
	}
	return fmt.Errorf("not ready: %s", strings.Join(waits, "; "))
}

// status prints what the agent that renders to AGENT_DIR says of itself, as a table or, as it came, in JSON.
func status(ctx context.Context, asJSON bool, w io.Writer) error {
	dir, err := alone(func(p *problems, v variables) string { return p.directory("AGENT_DIR", v.Dir) })
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, maxAsking)
	defer cancel()
	document, err := control.Ask(ctx, filepath.Join(dir, socketName))
	if err != nil {
		return err
	}
	if asJSON {
		_, err = w.Write(document)
		return err
	}
	return control.Table(w, document)
}
