package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a program that runs, and the goroutine that waits for it.
type process struct {
	cmd   *exec.Cmd
	log   string
	ended chan struct{} // closed once it has been waited for
}

// start starts cmd, whose output goes to the file log. If told is not nil, it gets word when cmd ends.
func start(cmd *exec.Cmd, log string, told chan<- struct{}) (*process, error) {
	f, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer f.Close() // cmd has its own descriptor
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, log: log, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		cmd.Wait()
		select {
		case told <- struct{}{}:
		default:
		}
	}()
	return p, nil
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	p.wait()
}

func (p *process) wait() { <-p.ended }

// enter prepares a command that runs in the node's namespaces.
func (n *Node) enter(ctx context.Context, args ...string) *exec.Cmd {
	return enter(ctx, n.init.cmd.Process.Pid, n.Debian, args...)
}

func enter(ctx context.Context, init int, debian string, args ...string) *exec.Cmd {
	args = append([]string{"--target", strconv.Itoa(init), "--mount", "--pid", "--net", "--"}, args...)
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	// containerd looks for its shims on PATH.
	cmd.Env = []string{"PATH=" + filepath.Join(debian, "usr/bin") + ":" + filepath.Join(debian, "usr/sbin") + ":" + os.Getenv("PATH"), "HOME=/"}
	return cmd
}

// spawn starts a program in the namespaces, which runs until Stop.
func (n *Node) spawn(name, path string, args ...string) error {
	cmd := n.enter(context.Background(), append([]string{path}, args...)...)
	p, err := start(cmd, n.path(name+".log"), n.ended)
	if err != nil {
		return err
	}
	n.others = append(n.others, p)
	return nil
}

// await calls try until it succeeds. name is the program whose log tells why it doesn't.
func (n *Node) await(ctx context.Context, name string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
			err = errors.Join(err, ctx.Err())
		case <-n.ended:
			err = errors.Join(err, errors.New("a program ended"))
		}
		log, _ := os.ReadFile(n.path(name + ".log"))
		return fmt.Errorf("%w; the end of %s's log:\n%s", err, name, log[max(0, len(log)-2000):])
	}
}

// kubectl returns a call of it, for await.
func (n *Node) kubectl(args ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		return output(exec.CommandContext(ctx, n.tool("kubectl"), append([]string{"--kubeconfig=" + n.Kubeconfig}, args...)...))
	}
}

// ctr returns a call of containerd's own client, for await.
func (n *Node) ctr(args ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		return output(n.enter(ctx, append([]string{"ctr"}, args...)...))
	}
}

// output runs cmd; an error has what it printed.
func output(cmd *exec.Cmd) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, strings.TrimSpace(out.String()))
	}
	return nil
}

// namespaces are what process 1 is born into. Mounts are private from the beginning.
func namespaces() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:   syscall.CLONE_NEWPID,
		Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		Pdeathsig:    syscall.SIGKILL,
	}
}
