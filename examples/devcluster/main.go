// Command devcluster runs a real Kubernetes of one node as plain processes, where no registry and no container engine is at
// hand:
//
//	go -C examples/devcluster run .                     # prints the path of a KUBECONFIG, runs until SIGINT or SIGTERM
//	go -C examples/devcluster run . tools               # prints the directory of kubectl and the other programs
//	go -C examples/devcluster run . image NAME FILE...  # writes an image FROM scratch, as an archive, to stdout
//	go -C examples/devcluster run . load < ARCHIVE      # imports it into the cluster of $KUBECONFIG
//
// The first time it builds kubelet, kube-apiserver, kube-controller-manager, kube-scheduler and kubectl from the Go module
// proxy, which takes some minutes, and fetches etcd, containerd, runc and the CNI plugins from Debian's packages. All of
// them stay in the user's cache directory. It needs root, Debian, and ip, mount and nsenter.
//
// # What the cluster has
//
// Pods, probes, volumes, exec, logs, RBAC, TokenReview and Pod
// Security. The machine is [node.HostAddress] for pods, and reaches each pod at its own address. It has no kube-proxy, no
// DNS and no network policies, and pods reach nothing beyond the machine. Whoever reaches the node may do all that its
// kubelet can: it is for tests alone.
//
// # What it leaves behind
//
// Nothing: all of it lives in a process, mount and network namespace of its own, with its files on a tmpfs in there, and goes
// with them, also if this command is killed. Only the cgroup /keyturn-devcluster and a directory of logs outlive a kill;
// the next start removes the first.
//
// It is a module of its own to keep the modules that Kubernetes requires out of the main one's go.mod.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/keyturn/keyturn/examples/devcluster/internal/image"
	"github.com/keyturn/keyturn/examples/devcluster/internal/node"
	"github.com/keyturn/keyturn/examples/devcluster/internal/tools"
)

func main() {
	runtime.LockOSThread() // the kernel ends what this command started when the thread that started it ends
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "devcluster: %v\n", err)
		os.Exit(1)
	}
}

const usage = "usage: devcluster [tools | image [-packages NAME,...] NAME[:TAG] FILE... | load < ARCHIVE]"

func run(ctx context.Context, args []string) error {
	set, err := tools.New(os.Stderr)
	if err != nil {
		return err
	}
	command := ""
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	switch command {
	case "":
		return cluster(ctx, set)
	case "tools":
		if err := set.Build(ctx); err != nil {
			return err
		}
		fmt.Println(set.Dir)
		return nil
	case "image":
		return writeImage(ctx, set, args)
	case "load":
		return node.Load(ctx, filepath.Dir(os.Getenv("KUBECONFIG")), os.Stdin)
	}
	return errors.New(usage)
}

// cluster runs a cluster until ctx ends.
func cluster(ctx context.Context, set *tools.Set) error {
	if os.Geteuid() != 0 {
		return errors.New("namespaces, mounts and cgroups need root: run it as root")
	}
	if err := set.Build(ctx); err != nil {
		return err
	}
	debian, err := set.Unpack(ctx, node.Packages...)
	if err != nil {
		return err
	}
	n, err := node.Start(ctx, node.Config{Tools: set.Dir, Debian: debian, Progress: os.Stderr})
	if err != nil {
		return err
	}
	fmt.Println(n.Kubeconfig)
	select {
	case <-ctx.Done():
		return n.Stop()
	case <-n.Ended():
		return errors.Join(errors.New("the cluster ended"), n.Stop())
	}
}

// writeImage writes an archive whose root holds the files and, if there are any, the Debian packages.
func writeImage(ctx context.Context, set *tools.Set, args []string) error {
	var i image.Image
	if len(args) > 1 && args[0] == "-packages" {
		root, err := set.Unpack(ctx, strings.Split(args[1], ",")...)
		if err != nil {
			return err
		}
		i.Root, args = root, args[2:]
	}
	if len(args) == 0 {
		return errors.New(usage)
	}
	i.Name, i.Files = args[0], args[1:]
	return i.Write(os.Stdout)
}
