//go:build compose

package compose

import (
	"bufio"
	"os/exec"
	"strings"
	"testing"
)

// onTerminal runs a script on a terminal of its own, types a line once it shows prompt, and returns all that it shows.
func (s *stack) onTerminal(t *testing.T, script, prompt, line string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "script", "--quiet", "--return", "--command", script, "/dev/null")
	cmd.Dir = root
	cmd.Env = append(s.e.environ[:len(s.e.environ):len(s.e.environ)], s.settings...)
	keyboard, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	screen, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var shown strings.Builder
	typed := false
	for r := bufio.NewReader(screen); ; {
		b, err := r.ReadByte()
		if err != nil {
			break
		}
		shown.WriteByte(b)
		if !typed && strings.HasSuffix(shown.String(), prompt) {
			typed = true
			if _, err := keyboard.Write([]byte(line + "\n")); err != nil {
				t.Error(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil || !typed {
		t.Fatalf("%s on a terminal: %v\n%s", script, err, shown.String())
	}
	return shown.String()
}
