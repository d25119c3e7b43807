// Package porttest keeps ports for tests that name one before somebody listens on it, or listen on it more than once.
//
// To listen on any port, close, and use its number is a race: another test, or another package's that runs at the same time,
// may get the same one meanwhile.
package porttest

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// Reserve returns a host and port that nobody listens on. Until the test ends nobody gets it who asks for any port, and who
// asks for this one does. host is an address of this machine.
//
// It holds a socket that is bound and never listens. With SO_REUSEADDR, which Go sets for each listener, Linux lets others be
// bound beside it by name, as long as one of them at most listens; a port of its own choice it takes elsewhere.
func Reserve(t testing.TB, host string) (address string) {
	t.Helper()
	ip, err := netip.ParseAddr(host)
	if err != nil {
		t.Fatalf("%q is no address", host)
	}
	family, anyPort := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: ip.As16()})
	if ip.Is4() {
		family, anyPort = unix.AF_INET, &unix.SockaddrInet4{Addr: ip.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, anyPort); err != nil {
		t.Fatalf("a port of %s: %v: is it an address of this machine?", host, err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	var port int
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		port = name.Port
	case *unix.SockaddrInet6:
		port = name.Port
	}
	return netip.AddrPortFrom(ip, uint16(port)).String()
}

// Loopback is Reserve for 127.0.0.1.
func Loopback(t testing.TB) (address string) {
	t.Helper()
	return Reserve(t, "127.0.0.1")
}
