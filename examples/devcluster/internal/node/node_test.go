package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEachUserHasATokenOfItsOwn(t *testing.T) {
	n := &Node{dir: t.TempDir()}
	if err := n.configure(t.Context()); err != nil {
		t.Fatal(err)
	}
	first, err := n.token(admin)
	if err != nil || len(first) < 20 {
		t.Errorf("the administrator's: %q (%v)", first, err)
	}
	if second, err := n.token(kubelet); err != nil || second == first {
		t.Errorf("the kubelet's: %q (%v)", second, err)
	}
	if _, err := n.token("nobody"); err == nil {
		t.Error("nobody has a token")
	}
}

func TestATreeOfCgroupsIsRemovedFromItsLeavesOn(t *testing.T) {
	root := filepath.Join(t.TempDir(), cgroup)
	if err := os.MkdirAll(filepath.Join(root, "kubepods/besteffort/pod1"), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time nothing is there
		if err := removeTree(root); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(root); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestLoadSaysWhatKubeconfigHasToBe(t *testing.T) {
	err := Load(t.Context(), t.TempDir(), strings.NewReader(""))
	if err == nil || !strings.Contains(err.Error(), "KUBECONFIG") {
		t.Errorf("a directory that is no node's: %v", err)
	}
}
