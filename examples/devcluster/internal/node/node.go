// Package node runs the one node of a cluster, its control plane included, in namespaces of its own.
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Packages are the Debian packages that a node needs, unpacked, as Config.Debian.
var Packages = []string{"containerd", "runc", "containernetworking-plugins", "etcd-server"}

// Config says where a node's programs are. All fields are required.
type Config struct {
	// Tools and Debian are directories: with what is built from source, and with the content of Packages.
	Tools, Debian string
	// Progress gets a line for each step.
	Progress io.Writer
}

// Node is a running node. Its methods are not safe for concurrent use.
type Node struct {
	// Kubeconfig is the file to reach it with, as an administrator. Its directory is the node's, and has the logs of all
	// programs.
	Kubeconfig string

	Config
	dir    string
	init   *process // process 1 of the namespaces: all others end with it
	others []*process
	wired  bool          // the wire to the node may be there, and is ours
	ended  chan struct{} // closed when the first of them ends
}

// patience bounds each step of a start: a disk or a core that others keep busy makes them slow.
const patience = 2 * time.Minute

// Start starts a node and returns once it takes pods. ctx governs only that. The node ends with the calling thread.
func Start(ctx context.Context, c Config) (_ *Node, err error) {
	if err := checkAlone(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "keyturn-devcluster-")
	if err != nil {
		return nil, err
	}
	n := &Node{Config: c, dir: dir, Kubeconfig: filepath.Join(dir, "kubeconfig"), ended: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Stop())
		}
	}()
	began := time.Now()
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"configuration", n.configure},
		{"namespaces", n.enclose},
		{"control plane", n.startControlPlane},
		{"container engine", n.startEngine},
		{"node", n.startKubelet},
	} {
		if err := step.do(ctx); err != nil {
			return nil, fmt.Errorf("start the %s: %w", step.what, err)
		}
		fmt.Fprintf(c.Progress, "%s: ready after %v\n", step.what, time.Since(began).Round(100*time.Millisecond))
	}
	return n, nil
}

// Ended is ready once a program of the node has ended by itself.
func (n *Node) Ended() <-chan struct{} { return n.ended }

// Stop ends all of the node and removes what it left. It may be called again.
func (n *Node) Stop() error {
	unwired := n.unwire()
	if n.init != nil {
		n.init.kill()
	}
	for _, p := range n.others {
		p.wait()
	}
	return errors.Join(unwired, removeCgroups(), os.RemoveAll(n.dir))
}

func (n *Node) startControlPlane(ctx context.Context) error {
	if err := n.spawn("etcd", filepath.Join(n.Debian, "usr/bin/etcd"), "--data-dir=/run/etcd", "--log-level=error"); err != nil {
		return err
	}
	if err := n.spawn("kube-apiserver", n.tool("kube-apiserver"), n.apiserverFlags()...); err != nil {
		return err
	}
	if err := n.await(ctx, "kube-apiserver", n.writeKubeconfig); err != nil {
		return err
	}
	if err := n.await(ctx, "kube-apiserver", n.kubectl("get", "--raw=/readyz")); err != nil {
		return err
	}
	if err := n.spawn("kube-controller-manager", n.tool("kube-controller-manager"), "--kubeconfig="+n.Kubeconfig, "--leader-elect=false",
		"--service-account-private-key-file="+n.path("service-accounts.key"), "--root-ca-file="+n.path("apiserver.crt")); err != nil {
		return err
	}
	return n.spawn("kube-scheduler", n.tool("kube-scheduler"), "--kubeconfig="+n.Kubeconfig, "--leader-elect=false")
}

func (n *Node) apiserverFlags() []string {
	return []string{
		"--etcd-servers=http://127.0.0.1:2379",
		"--bind-address=" + nodeAddress, "--advertise-address=" + nodeAddress, "--secure-port=" + strconv.Itoa(apiserverPort),
		"--cert-dir=" + n.dir, // it signs a certificate for its address and puts it there
		"--token-auth-file=" + n.path("tokens.csv"), "--authorization-mode=Node,RBAC",
		"--service-account-key-file=" + n.path("service-accounts.key"),
		"--service-account-signing-key-file=" + n.path("service-accounts.key"),
		"--service-account-issuer=" + issuer,
		"--service-cluster-ip-range=" + serviceRange, "--endpoint-reconciler-type=none",
		"--kubelet-preferred-address-types=InternalIP", // there is no DNS
	}
}

func (n *Node) startEngine(ctx context.Context) error {
	if err := n.spawn("containerd", filepath.Join(n.Debian, "usr/bin/containerd"), "--config="+n.path("containerd.toml")); err != nil {
		return err
	}
	if err := n.await(ctx, "containerd", n.ctr("version")); err != nil {
		return err
	}
	return n.loadPause(ctx)
}

func (n *Node) startKubelet(ctx context.Context) error {
	if err := n.spawn("kubelet", n.tool("kubelet"), "--kubeconfig="+n.path("kubelet.kubeconfig"), "--config="+n.path("kubelet.yaml"),
		"--hostname-override="+nodeName, "--node-ip="+nodeAddress); err != nil {
		return err
	}
	if err := n.await(ctx, "kubelet", n.kubectl("get", "node", nodeName)); err != nil {
		return err
	}
	if err := n.await(ctx, "kubelet", n.kubectl("wait", "--for=condition=Ready", "node/"+nodeName, "--timeout=1s")); err != nil {
		return err
	}
	// A pod is refused until its namespace has this, which the controller manager makes.
	return n.await(ctx, "kube-controller-manager", n.kubectl("get", "serviceaccount", "default"))
}

func (n *Node) tool(name string) string { return filepath.Join(n.Tools, name) }

func (n *Node) path(name string) string { return filepath.Join(n.dir, name) }
