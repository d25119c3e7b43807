//go:build !stoppoints

package sink

// stopAt does nothing in a program that ships. Built with the tag stoppoints it stops the process within a write, so that a
// test can kill it there.
func stopAt(string, string) {}
