package sink

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestATmpfsIsSwappableUnlessItsMountSaysNoswap(t *testing.T) {
	const mounts = `21 1 254:0 / / rw - ext4 /dev/vda rw
22 21 0:5 / /run rw,nosuid - tmpfs tmpfs rw,size=1024k
23 22 0:6 / /run/key\040turn rw,nosuid,nodev shared:7 - tmpfs tmpfs rw,size=1024k,mode=700,noswap
26 21 0:9 / /twice rw - ramfs ramfs rw
27 21 0:9
`
	for id, want := range map[string]bool{"21": false, "22": true, "23": false, "26": false, "27": false, "2": false, "": false} {
		if got := swappable(mountOf("pos:\t0\nflags:\t02100000\nmnt_id:\t"+id+"\nino:\t22\n", mounts)); got != want {
			t.Errorf("mount %s: %v, want %v", id, got, want)
		}
	}
}

// The path may lead through links, and its mount point be written with escapes.
func TestTheMountIsThatOfTheDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a tmpfs needs root")
	}
	parent := t.TempDir()
	point := filepath.Join(parent, "with space")
	if err := os.Mkdir(point, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("here", point, "tmpfs", 0, "size=64k,mode=0700"); err != nil {
		t.Skipf("mounting a tmpfs: %v", err)
	}
	defer unix.Unmount(point, unix.MNT_DETACH)
	link := filepath.Join(parent, "link")
	if err := os.Symlink(point, link); err != nil {
		t.Fatal(err)
	}
	d := open(t, filepath.Join(link, "keys"))
	defer d.Close()
	if mount, err := d.mount(); err != nil || !strings.Contains(mount, " - tmpfs here ") || !swappable(mount) {
		t.Errorf("it lies on %q, %v", mount, err)
	}
}
