package sink

import "testing"

func TestATmpfsIsSwappableUnlessItsMountSaysNoswap(t *testing.T) {
	const mounts = `21 1 254:0 / / rw - ext4 /dev/vda rw
22 21 0:5 / /run rw,nosuid - tmpfs tmpfs rw,size=1024k
23 22 0:6 / /run/keyturn rw,nosuid,nodev shared:7 - tmpfs tmpfs rw,size=1024k,mode=700,noswap
24 22 0:7 / /run/keyturn-old rw - tmpfs tmpfs rw
25 21 0:8 / /twice rw - tmpfs tmpfs rw
26 21 0:9 / /twice rw - ramfs ramfs rw
27 21 0:9
`
	for path, want := range map[string]bool{
		"/run/keyturn/keys": false, "/run/keyturn": false, "/run/keyturn-old/keys": true, "/run/other": true, "/run": true,
		"/home/keys": false, "/twice/keys": false,
	} {
		if got := swappable(mounts, path); got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}
