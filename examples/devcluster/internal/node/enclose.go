package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/examples/devcluster/internal/image"
)

// The addresses are of a range that is set aside for tests (RFC 2544), so they are nobody else's.
const (
	// HostAddress is the machine's, for pods.
	HostAddress = "198.18.0.1"

	nodeAddress   = "198.18.0.2"
	podRange      = "198.18.1.0/24"
	serviceRange  = "198.18.2.0/24"
	apiserverPort = 6443

	nodeName = "devcluster"
	// link is the machine's end of the wire to the node.
	link = "keyturn-cluster"
)

// checkAlone refuses a second node on one machine, and removes what one that was killed left.
func checkAlone() error {
	if _, err := net.InterfaceByName(link); err == nil {
		return fmt.Errorf("the interface %s is there: another cluster runs on this machine; stop that one first", link)
	}
	return removeCgroups()
}

// enclose makes the namespaces, and in them a machine that programs find as they expect it.
func (n *Node) enclose(ctx context.Context) error {
	cmd := exec.Command(n.tool("pause"))
	cmd.SysProcAttr = namespaces()
	var err error
	if n.init, err = start(cmd, n.path("init.log"), n.ended); err != nil {
		return err
	}
	pid := strconv.Itoa(cmd.Process.Pid)
	if err := os.WriteFile(n.path("init"), []byte(pid+"\n"+n.Debian+"\n"), 0o600); err != nil {
		return err
	}
	if err := makeCgroups(); err != nil {
		return err
	}
	if err := n.enterMounts(ctx); err != nil {
		return err
	}
	n.wired = true
	wire := exec.CommandContext(ctx, "sh", "-eu", "-c", wireHost, "sh", pid, link, HostAddress, nodeAddress, podRange)
	if err := output(wire); err != nil {
		return err
	}
	return output(n.enter(ctx, "sh", "-eu", "-c", wireNode, "sh", HostAddress, nodeAddress))
}

// enterMounts enters by hand, since /proc is still the machine's.
func (n *Node) enterMounts(ctx context.Context) error {
	return output(n.enter(ctx, "sh", "-eu", "-c", mounts, "sh", n.dir))
}

// mounts hides the machine's directories that the programs write to, and its kernel settings, which a kubelet changes
// unless they are what it wants (kubelet, setupKernelTunables).
const mounts = `
mount -t proc proc /proc
for dir in /run /var/lib /var/log; do mount -t tmpfs tmpfs "$dir"; done
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
	kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
	file=$(mktemp -p /run)
	echo "${setting#*=}" >"$file"
	mount --bind "$file" "/proc/sys/${setting%=*}"
done
`

const wireHost = `
ip link add "$2" type veth peer name eth0 netns "$1"
ip addr add "$3/30" dev "$2"
ip link set "$2" up
ip route add "$5" via "$4"
`

const wireNode = `
ip link set lo up
ip addr add "$2/30" dev eth0
ip link set eth0 up
ip route add default via "$1"
echo 1 >/proc/sys/net/ipv4/ip_forward
`

// unwire takes both ends of the wire away. The kernel would too, some time after the last process of the node has ended, and
// may be at it.
func (n *Node) unwire() error {
	if !n.wired {
		return nil
	}
	n.wired = false
	err := output(exec.Command("ip", "link", "del", link))
	if _, gone := net.InterfaceByName(link); gone != nil {
		return nil
	}
	return err
}

// loadPause makes the image that holds each pod's namespaces.
func (n *Node) loadPause(ctx context.Context) error {
	var archive bytes.Buffer
	if err := (image.Image{Name: pauseImage, Files: []string{n.tool("pause")}}).Write(&archive); err != nil {
		return err
	}
	return Load(ctx, n.dir, &archive)
}

// Load imports an archive of images into the node whose directory is dir.
func Load(ctx context.Context, dir string, archive io.Reader) error {
	content, err := os.ReadFile(filepath.Join(dir, "init"))
	if err != nil {
		return errors.New("KUBECONFIG names no cluster of this command: set it to the path that was printed")
	}
	first, debian, _ := strings.Cut(strings.TrimSpace(string(content)), "\n")
	init, err := strconv.Atoi(first)
	if err != nil {
		return err
	}
	cmd := enter(ctx, init, debian, "ctr", "--namespace=k8s.io", "images", "import", "-")
	cmd.Stdin = archive
	return output(cmd)
}

// writeKubeconfig succeeds once the API server has written its certificate.
func (n *Node) writeKubeconfig(context.Context) error {
	certificate, err := os.ReadFile(n.path("apiserver.crt"))
	if err != nil {
		return err
	}
	for file, user := range map[string]string{n.Kubeconfig: admin, n.path("kubelet.kubeconfig"): kubelet} {
		token, err := n.token(user)
		if err != nil {
			return err
		}
		content, err := json.Marshal(kubeconfig(certificate, user, token))
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, content, 0o600); err != nil {
			return err
		}
	}
	return nil
}
