package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// startTimeout bounds how long an agent and an app may take until both are ready.
const startTimeout = 30 * time.Second

// PodConfig says how an agent and an app run. SDK and BaseURL are required.
type PodConfig struct {
	// SDK is generative-ai-go or genai; Model is empty for the app's default.
	SDK, Model string
	// BaseURL is the Gemini endpoint of both; empty: Google's.
	BaseURL string
	// Poll is the agent's poll interval.
	Poll time.Duration
	// Environ holds more variables for both, as NAME=VALUE.
	Environ []string
}

// Pod is an agent and an app side by side. Close it.
type Pod struct {
	// Agent and App are the URLs at which they listen, KeyFile is what is between them.
	Agent, App, KeyFile string

	dir        string
	agent, app *process
}

// Pod starts an agent and an app, and returns once both are ready: the secret must have been written. ctx governs only that.
func (s *Stage) Pod(ctx context.Context, c PodConfig) (_ *Pod, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s.pods++
	p := &Pod{dir: filepath.Join(s.Dir, fmt.Sprintf("pod-%d", s.pods))}
	p.KeyFile = filepath.Join(p.dir, "keys", "gemini-api-key")
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if err := s.credentials(ctx, p.dir); err != nil {
		return nil, err
	}
	addresses, err := freeAddresses(2)
	if err != nil {
		return nil, err
	}
	p.Agent, p.App = "http://"+addresses[0], "http://"+addresses[1]
	if p.agent, err = launch(fmt.Sprintf("agent-%d", s.pods), s.agent, s.agentEnviron(p, c, addresses[0]), s.logs); err != nil {
		return nil, err
	}
	if p.app, err = launch(fmt.Sprintf("app-%d", s.pods), s.app, appEnviron(p, c, addresses[1]), s.logs); err != nil {
		return nil, err
	}
	if err := p.awaitReady(ctx, p.Agent, p.agent); err != nil {
		return nil, err
	}
	return p, p.awaitReady(ctx, p.App, p.app)
}

// credentials makes dir with what the agent logs in with, as a platform would mount it.
func (s *Stage) credentials(ctx context.Context, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	secretID, err := s.Vault.secretID(ctx)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "role-id"), []byte(s.Vault.roleID), 0o600),
		os.WriteFile(filepath.Join(dir, "secret-id"), []byte(secretID), 0o600),
	)
}

func (s *Stage) agentEnviron(p *Pod, c PodConfig, listen string) []string {
	return append([]string{
		"VAULT_ADDR=" + s.Vault.server.Addr,
		"VAULT_CACERT=" + s.Vault.server.CACert,
		"AGENT_AUTH=approle",
		"AGENT_ROLE_ID_FILE=" + filepath.Join(p.dir, "role-id"),
		"AGENT_SECRET_ID_FILE=" + filepath.Join(p.dir, "secret-id"),
		"AGENT_SECRETS=" + filepath.Base(p.KeyFile) + "=" + s.Vault.Secret(),
		"AGENT_DIR=" + filepath.Dir(p.KeyFile),
		"AGENT_POLL_INTERVAL=" + c.Poll.String(),
		"AGENT_LISTEN=" + listen,
		"GOOGLE_GEMINI_BASE_URL=" + c.BaseURL,
	}, c.Environ...)
}

func appEnviron(p *Pod, c PodConfig, listen string) []string {
	return append([]string{
		"APP_KEY_FILE=" + p.KeyFile,
		"APP_LISTEN=" + listen,
		"APP_SDK=" + c.SDK,
		"APP_MODEL=" + c.Model,
		"GOOGLE_GEMINI_BASE_URL=" + c.BaseURL,
	}, c.Environ...)
}

// freeAddresses returns n different addresses of 127.0.0.1 that nobody listens at.
func freeAddresses(n int) ([]string, error) {
	var all []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		all = append(all, l.Addr().String())
	}
	return all, nil
}

func (p *Pod) awaitReady(ctx context.Context, url string, process *process) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	reason := "no answer"
	for {
		if err := p.Failed(); err != nil {
			return err
		}
		status, body, err := get(ctx, url+"/readyz")
		if err == nil && status == http.StatusOK {
			return nil
		}
		if err == nil {
			reason = strings.TrimSpace(body)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready (%w): %s\nits last lines:\n%s", process.name, ctx.Err(), reason, process.log)
		}
	}
}

// Failed returns an error if one of the two has ended.
func (p *Pod) Failed() error {
	for _, process := range []*process{p.agent, p.app} {
		select {
		case <-process.ended:
			return process.died()
		default:
		}
	}
	return nil
}

// AgentMetrics returns what the agent's /metrics says, AppMetrics the app's.
func (p *Pod) AgentMetrics(ctx context.Context) (Metrics, error) { return scrape(ctx, p.Agent) }

// AppMetrics returns what the app's /metrics says.
func (p *Pod) AppMetrics(ctx context.Context) (Metrics, error) { return scrape(ctx, p.App) }

// Close stops the app, then the agent, and removes their files.
func (p *Pod) Close() error {
	var err error
	for _, process := range []*process{p.app, p.agent} {
		if process != nil {
			err = errors.Join(err, process.stop())
		}
	}
	return errors.Join(err, os.RemoveAll(p.dir))
}

var client = &http.Client{Timeout: 5 * time.Second}

func get(ctx context.Context, url string) (status int, body string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	b, err := io.ReadAll(io.LimitReader(response.Body, 4<<20))
	return response.StatusCode, string(b), err
}
