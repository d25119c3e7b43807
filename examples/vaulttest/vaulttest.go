// Package vaulttest runs a real HashiCorp Vault, in dev mode, for tests and the quickstart.
//
// Dev mode holds everything in memory: a Vault that was stopped and started again has the same address, root token and
// certificates if it is told to, and none of its secrets. For an outage that loses nothing there are Pause and Seal.
package vaulttest

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/vault/api"
)

// Options say how to start a Vault. The zero value starts one over plain HTTP, on a free port, with a random root token.
type Options struct {
	// Binary is the program; empty: what Binary finds.
	Binary string
	// TLS makes Vault serve HTTPS with a certificate for localhost and 127.0.0.1.
	TLS bool
	// Listen is an address such as "127.0.0.1:8200"; empty: a free port of 127.0.0.1.
	Listen string
	// RootToken is the root token; empty: a random one.
	RootToken string
	// Log gets Vault's output; nil: nowhere. It is written to by one goroutine.
	Log io.Writer
	// Dir is where certificates go; empty: a temporary directory that Stop removes.
	Dir string
}

// Server is one running Vault. Its methods are not safe for concurrent use; the process they speak of may be used by any.
type Server struct {
	// Addr is Vault's URL, RootToken its root token.
	Addr, RootToken string
	// Listen is where it listens: give it to Start to have another one in the same place.
	Listen string
	// CACert is the file with the authority that signed its certificate; empty without TLS.
	CACert string

	unsealKey string
	client    *api.Client
	transport *http.Transport
	process   *os.Process
	ended     chan struct{} // closed once the process has been waited for
	outcome   error         // why it ended; read after ended
	remove    string        // a directory that is ours
}

// startTimeout bounds how long Vault may take to answer: a 360 MB binary from a cold disk takes a while.
const startTimeout = time.Minute

// attempts at a free port that nobody else takes between our look and Vault's.
const attempts = 3

// Start starts a Vault and returns once it answers. ctx governs only that. The process dies with this one, even if this
// one is killed.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Binary == "" { // which may take minutes
		var err error
		if o.Binary, err = Binary(ctx, io.Discard); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if o.RootToken == "" {
		o.RootToken = "root-" + rand.Text()
	}
	if o.Listen != "" {
		return start(ctx, o)
	}
	var failures error
	for range attempts {
		listen, err := freeAddress()
		if err != nil {
			return nil, err
		}
		o.Listen = listen
		s, err := start(ctx, o)
		if err == nil {
			return s, nil
		}
		failures = errors.Join(failures, err)
	}
	return nil, failures
}

func start(ctx context.Context, o Options) (_ *Server, err error) {
	s := &Server{RootToken: o.RootToken, Listen: o.Listen, Addr: "http://" + o.Listen, ended: make(chan struct{})}
	if o.Dir == "" {
		if s.remove, err = os.MkdirTemp("", "vaulttest-"); err != nil {
			return nil, err
		}
		o.Dir = s.remove
	}
	if o.TLS {
		s.Addr, s.CACert = "https://"+o.Listen, filepath.Join(o.Dir, "vault-ca.pem")
	}
	keys, err := s.run(command(o), o.Log)
	if err != nil {
		return nil, errors.Join(err, s.tidy())
	}
	if err := s.awaitReady(ctx, keys); err != nil {
		return nil, errors.Join(err, s.Kill())
	}
	return s, nil
}

func command(o Options) *exec.Cmd {
	args := []string{"server", "-dev", "-dev-no-store-token", "-dev-listen-address=" + o.Listen}
	if o.TLS {
		args = append(args, "-dev-tls", "-dev-tls-cert-dir="+o.Dir)
	}
	cmd := exec.Command(o.Binary, args...)
	cmd.Dir = o.Dir
	// Nothing of the caller's VAULT_* reaches it, and the root token stays out of the list of processes.
	cmd.Env = []string{"VAULT_DEV_ROOT_TOKEN_ID=" + o.RootToken, "HOME=" + o.Dir, "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	return cmd
}

// run starts cmd and leaves it to a goroutine that waits for it. The unseal key comes out of the channel.
func (s *Server) run(cmd *exec.Cmd, log io.Writer) (<-chan string, error) {
	if log == nil {
		log = io.Discard
	}
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	keys, started, copied := make(chan string, 1), make(chan error), make(chan struct{})
	go func() {
		defer close(copied)
		copyLog(out, log, keys)
	}()
	go func() {
		// The kernel sends the death signal when the thread that forked ends, so this goroutine keeps its thread.
		runtime.LockOSThread()
		defer close(s.ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			s.outcome = cmd.Wait()
		}
		in.Close()
		<-copied
	}()
	if err := <-started; err != nil {
		<-s.ended
		return nil, fmt.Errorf("start Vault: %w", err)
	}
	s.process = cmd.Process
	return keys, nil
}

// copyLog ends when out does, which is closed once the process has ended.
func copyLog(out io.Reader, log io.Writer, keys chan<- string) {
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		io.WriteString(log, line)
		if key, found := strings.CutPrefix(line, "Unseal Key: "); found {
			keys <- strings.TrimSpace(key)
		}
		if err != nil {
			return
		}
	}
}

func (s *Server) awaitReady(ctx context.Context, keys <-chan string) error {
	select {
	case s.unsealKey = <-keys:
	case <-s.ended:
		return fmt.Errorf("the Vault at %s ended at once (%v): is the port taken?", s.Listen, s.outcome)
	case <-ctx.Done():
		return fmt.Errorf("the Vault doesn't start: %w", ctx.Err())
	}
	var err error
	if s.client, err = s.newClient(); err != nil {
		return err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		health, err := s.client.Sys().HealthWithContext(ctx)
		if err == nil && health.Initialized && !health.Sealed {
			// Dev mode mounts secret/ after it first answers.
			mounts, err := s.client.Sys().ListMountsWithContext(ctx)
			if err == nil && mounts["secret/"] != nil {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-s.ended:
			return fmt.Errorf("the Vault at %s ended (%v)", s.Listen, s.outcome)
		case <-ctx.Done():
			return fmt.Errorf("the Vault doesn't answer: %w", errors.Join(ctx.Err(), err))
		}
	}
}

// newClient makes a client of its own mind: it reads no VAULT_* variable that could lead it elsewhere.
func (s *Server) newClient() (*api.Client, error) {
	s.transport = &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	config := &api.Config{Address: s.Addr, HttpClient: &http.Client{Transport: s.transport}}
	if s.CACert != "" {
		if err := config.ConfigureTLS(&api.TLSConfig{CACert: s.CACert}); err != nil {
			return nil, err
		}
	}
	client, err := api.NewClient(config)
	if err != nil {
		return nil, err
	}
	client.SetToken(s.RootToken)
	client.ClearNamespace()
	return client, nil
}

// Client returns a client with the root token, which all callers share.
func (s *Server) Client() *api.Client { return s.client }

// Stop ends Vault in good order and waits for its end. It may be called again.
func (s *Server) Stop() error { return s.end(syscall.SIGTERM) }

// Kill ends Vault at once and waits for its end. It may be called again.
func (s *Server) Kill() error { return s.end(syscall.SIGKILL) }

// stopTimeout bounds Stop; what still runs then is killed.
const stopTimeout = 10 * time.Second

func (s *Server) end(signal syscall.Signal) error {
	s.process.Signal(signal) // one that has ended already is fine
	s.process.Signal(syscall.SIGCONT)
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-s.ended:
	case <-timer.C:
		s.process.Kill()
		<-s.ended
	}
	if s.transport != nil {
		s.transport.CloseIdleConnections()
	}
	return s.tidy()
}

func (s *Server) tidy() error {
	if s.remove == "" {
		return nil
	}
	return os.RemoveAll(s.remove)
}

// Pause stops Vault in its tracks: connections are still taken, and nothing is answered. Resume lets it go on.
func (s *Server) Pause() error { return s.process.Signal(syscall.SIGSTOP) }

// Resume undoes Pause.
func (s *Server) Resume() error { return s.process.Signal(syscall.SIGCONT) }

// Seal seals Vault: it answers 503 from now on. Secrets and tokens survive.
func (s *Server) Seal(ctx context.Context) error { return s.client.Sys().SealWithContext(ctx) }

// Unseal undoes Seal and returns once Vault serves again.
func (s *Server) Unseal(ctx context.Context) error {
	if _, err := s.client.Sys().UnsealWithContext(ctx, s.unsealKey); err != nil {
		return err
	}
	keys := make(chan string, 1)
	keys <- s.unsealKey
	return s.awaitReady(ctx, keys)
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
