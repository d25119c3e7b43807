package sink

import "os"

// InPlace reports whether the directory at Path is the one that is checked and locked, rather than one that somebody has put
// in its place, or opened to others, since.
func (d *Dir) InPlace() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	current, pinned := d.atPath()
	return pinned && owner(current) == os.Geteuid() && current.Mode().Perm() == directoryMode
}
