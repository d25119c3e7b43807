package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// vault is the package to build; go.mod names its module as a tool.
const vault = "github.com/hashicorp/vault"

// builder builds Vault once and finds it from then on. Its working directory is this module's.
type builder struct {
	goTool   string // the go command
	dir      string // where the binary is kept
	progress *progress
}

// binary returns the path of the binary, building it if it isn't there. It returns soon after ctx has ended, and then
// nothing that it started still runs, and no file of half a build remains.
func (b *builder) binary(ctx context.Context) (string, error) {
	version, err := b.version(ctx)
	if err != nil {
		return "", err
	}
	path := filepath.Join(b.dir, fmt.Sprintf("vault-%s-%s-%s", version, runtime.GOOS, runtime.GOARCH))
	if isProgram(path) {
		return path, nil
	}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return "", err
	}
	unlock, err := b.lock(ctx, path+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if isProgram(path) { // whoever held the lock has built it
		return path, nil
	}
	if err := b.build(ctx, version, path); err != nil {
		return "", err
	}
	return path, nil
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o100 != 0
}

// version asks the go command, so that go.mod is the one place that names it.
func (b *builder) version(ctx context.Context) (string, error) {
	out, err := b.run(ctx, nil, "list", "-m", "-f", "{{.Version}}", vault)
	if err != nil {
		return "", fmt.Errorf("find Vault's version in go.mod (run this in its directory): %w", err)
	}
	return strings.TrimSpace(out), nil
}

const (
	lockTick = 200 * time.Millisecond
	// grace is what an interrupted go command has to end by itself.
	grace = 5 * time.Second
)

// lock waits until no other run works on the same binary. A run that is killed gives the lock back.
func (b *builder) lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(lockTick)
	defer tick.Stop()
	for first := true; ; first = false {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		if first {
			b.progress.say("another run builds Vault already; waiting for it")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		}
	}
}

// build makes path. The caller holds the lock.
func (b *builder) build(ctx context.Context, version, path string) error {
	began := time.Now()
	if err := sweep(path); err != nil {
		return err
	}
	b.progress.say("building Vault %s from source; that takes some minutes, once", version)
	defer b.progress.end()
	packages, err := b.download(ctx)
	if err != nil {
		return fmt.Errorf("download Vault %s: %w", version, err)
	}
	temporary := fmt.Sprintf("%s%s%d", path, temporaryMark, os.Getpid())
	defer os.Remove(temporary)
	if err := b.compile(ctx, packages, temporary); err != nil {
		return fmt.Errorf("build Vault %s: %w", version, err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	b.progress.say("built %s in %v", path, time.Since(began).Round(time.Second))
	return nil
}

// temporaryMark is in the names of unfinished binaries.
const temporaryMark = ".tmp-"

// sweep removes what runs that were killed left of path.
func sweep(path string) error {
	left, err := filepath.Glob(path + temporaryMark + "*")
	if err != nil {
		return err
	}
	for _, file := range left {
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	return nil
}

// download fetches the modules, and returns how many packages there are to compile at most.
func (b *builder) download(ctx context.Context) (packages int, err error) {
	modules := 0
	out, err := b.run(ctx, func(line string) {
		if strings.HasPrefix(line, "go: downloading ") {
			modules++
			b.progress.step("downloading, %d modules so far", modules)
		}
	}, "list", "-deps", vault)
	return strings.Count(out, "\n"), err
}

// compile builds the binary at path. What the build cache holds is not compiled again.
func (b *builder) compile(ctx context.Context, packages int, path string) error {
	compiled := 0
	_, err := b.run(ctx, func(line string) {
		switch {
		case line == vault: // the last one
			b.progress.step("linking")
		case !strings.Contains(line, " "):
			compiled++
			b.progress.step("compiling, %d of at most %d packages", compiled, packages)
		}
	}, "build", "-v", "-trimpath", "-ldflags", "-s -w", "-o", path, vault)
	return err
}

// run runs the go command, hands each line that it writes to stderr to seen, and returns its output. Its error ends with
// the last of those lines. When ctx ends, the command's whole process group is interrupted, and killed after a while.
func (b *builder) run(ctx context.Context, seen func(line string), args ...string) (string, error) {
	var out strings.Builder
	cmd := exec.CommandContext(ctx, b.goTool, args...)
	cmd.Env = append(os.Environ(), "GOWORK=off")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGINT}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = grace
	said := &lines{seen: seen}
	cmd.Stdout, cmd.Stderr = &out, said
	if err := cmd.Start(); err != nil {
		return "", err
	}
	err := cmd.Wait()
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // who is left of the group
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("interrupted: %w", ctx.Err())
	case err != nil:
		return "", fmt.Errorf("%w\n%s", err, strings.Join(said.last, "\n"))
	}
	return out.String(), nil
}

// lines takes what a command writes to stderr apart.
type lines struct {
	seen func(line string) // nil: nobody looks
	half string            // of a line
	last []string
}

// tail is how many lines an error repeats.
const tail = 20

// Write implements io.Writer.
func (l *lines) Write(b []byte) (int, error) {
	all := strings.Split(l.half+string(b), "\n")
	l.half = all[len(all)-1]
	for _, line := range all[:len(all)-1] {
		l.last = append(l.last, line)
		if l.seen != nil {
			l.seen(line)
		}
	}
	l.last = l.last[max(0, len(l.last)-tail):]
	return len(b), nil
}
