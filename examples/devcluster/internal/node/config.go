package node

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
)

const (
	issuer     = "https://kubernetes.default.svc"
	pauseImage = "keyturn-devcluster-pause:1"

	admin   = "admin"
	kubelet = "system:node:" + nodeName
)

// configure writes the files that the programs read.
func (n *Node) configure(context.Context) error {
	key, err := signingKey()
	if err != nil {
		return err
	}
	tokens := fmt.Sprintf("%s,%s,1,system:masters\n%s,%s,2,system:nodes\n", rand.Text(), admin, rand.Text(), kubelet)
	for file, content := range map[string]string{
		"service-accounts.key": key,
		"tokens.csv":           tokens,
		"containerd.toml":      fmt.Sprintf(containerdConfig, pauseImage, n.Debian, n.dir),
		"kubelet.yaml":         fmt.Sprintf(kubeletConfig, cgroup),
		"pods.conflist":        fmt.Sprintf(networkConfig, podRange),
	} {
		if err := os.WriteFile(n.path(file), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// token returns the one that tokens.csv has for user.
func (n *Node) token(user string) (string, error) {
	content, err := os.ReadFile(n.path("tokens.csv"))
	for line := range strings.Lines(string(content)) {
		if token, rest, _ := strings.Cut(line, ","); strings.HasPrefix(rest, user+",") {
			return token, nil
		}
	}
	return "", fmt.Errorf("there is no token for %s (%v)", user, err)
}

// signingKey returns a new key for the tokens of service accounts, in PEM.
func signingKey() (string, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})), nil
}

func kubeconfig(certificate []byte, user, token string) any {
	return map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": nodeName,
		"clusters": []any{map[string]any{"name": nodeName, "cluster": map[string]any{
			"server": fmt.Sprintf("https://%s:%d", nodeAddress, apiserverPort), "certificate-authority-data": certificate}}},
		"users":    []any{map[string]any{"name": user, "user": map[string]any{"token": token}}},
		"contexts": []any{map[string]any{"name": nodeName, "context": map[string]any{"cluster": nodeName, "user": user}}},
	}
}

// containerdConfig is for containerd 1.6. AppArmor's profiles and negative OOM scores are not for namespaces to set.
const containerdConfig = `version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/library/%[1]s"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "%[2]s/usr/lib/cni"
    conf_dir = "%[3]s"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "%[2]s/usr/sbin/runc"
      SystemdCgroup = false
`

// networkConfig puts all pods on one bridge, whose own address is their way to the machine. It needs no packet filter.
const networkConfig = `{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [{
    "type": "bridge", "bridge": "pods", "isGateway": true,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "%s"}]], "routes": [{"dst": "0.0.0.0/0"}]}
  }]
}
`

// kubeletConfig leaves out what costs time or touches the machine: there is nothing to evict or to collect in a test.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupRoot: /%s
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
evictionHard: {memory.available: 10Mi, nodefs.available: "0%%", nodefs.inodesFree: "0%%", imagefs.available: "0%%"}
failSwapOn: false
imageGCHighThresholdPercent: 100
makeIPTablesUtilChains: false
oomScoreAdj: 0
resolvConf: ""
volumePluginDir: /var/lib/kubelet/volumeplugins
`
