package e2e

import (
	"errors"
	"os"
)

// tamperFaults are what somebody does to the file, or to its directory. TestFilesThatSomebodyChangedAreRepaired has all of what
// the agent repairs; here is what an app under load may notice of it.
var tamperFaults = []fault{
	tampered(1, "another key written", "somebody writes a key into the file that Gemini refuses", func(w *world) error {
		planted := newValue()
		w.secrets = append(w.secrets, planted)
		return os.WriteFile(w.path(), []byte(planted), 0o600)
	}),
	tampered(1, "file emptied", "somebody truncates the file", func(w *world) error { return os.Truncate(w.path(), 0) }),
	tampered(1, "file deleted", "somebody removes the file", func(w *world) error { return os.Remove(w.path()) }),
	tampered(1, "file opened to others", "somebody gives it mode 0644", func(w *world) error { return os.Chmod(w.path(), 0o644) }),
	tampered(1, "link planted", "somebody puts a link to another file in its place", func(w *world) error {
		return replace(w.path(), func() error { return os.Symlink("/etc/hostname", w.path()) })
	}),
	tampered(1, "directory opened to others", "somebody gives the directory mode 0755", func(w *world) error { return os.Chmod(w.dir, 0o755) }),
	tampered(2, "directory replaced", "somebody moves it away, and puts an empty one in its place", func(w *world) error {
		return errors.Join(os.Rename(w.dir, w.dir+".old"), os.Mkdir(w.dir, 0o700))
	}),
}

// tampered is something that the agent undoes by itself, once and in one line; lines is that and what it says of the socket.
func tampered(lines int, name, did string, by func(w *world) error) fault {
	return fault{
		name: name, did: did, lines: lines, felt: never, tampers: true,
		strike: func(w *world) { w.try(by(w)) },
		proof: func(w *world) {
			if n := len(repairing{agent: w.agent}.found()); n != 1 {
				w.t.Errorf("the agent says %d times that it repaired something, want once", n)
			}
		},
	}
}
