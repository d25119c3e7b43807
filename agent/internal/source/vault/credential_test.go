package vault

import (
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestACredentialIsReadWholeAndAPipeIsNotWaitedFor(t *testing.T) {
	for _, size := range []int{0, 1, maxCredential, maxCredential + 1, 2 * maxCredential} {
		text := strings.Repeat("x", size)
		if b, err := readCredential(file(t, text)); err != nil || string(b) != text[:min(size, maxCredential+1)] {
			t.Errorf("of %d bytes it reads %d, %v", size, len(b), err)
		}
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readCredential(pipe); err != fs.ErrInvalid {
		t.Errorf("a pipe: %v", err)
	}
}

func TestARefusedPairIsComparedWithoutCopiesOfIt(t *testing.T) {
	var r refusal
	body := map[string]string{"role_id": strings.Repeat("r", 64), "secret_id": strings.Repeat("s", 64)}
	r.note(body)
	if n := testing.AllocsPerRun(100, func() { r.stands(body) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if r.stands(map[string]string{"role_id": body["role_id"] + "s", "secret_id": body["secret_id"][1:]}) {
		t.Error("another pair of the same bytes has to wait")
	}
	r.clear()
	if r.stands(body) {
		t.Error("it is forgotten, and stands")
	}
}
