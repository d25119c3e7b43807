package e2e

import (
	"net"
	"sync"
	"testing"
)

// lossy stands between agent and Vault as a firewall does, or a balancer, that may lose track of connections: what comes over
// one is gone then, and nobody is told, for ever. The fault proxy can't do that, since it closes what it has held up.
type lossy struct {
	listen, upstream string

	mu     sync.Mutex
	losing bool
	links  []*link
	closed bool
}

// link is a connection and where it leads; lost once it is given up.
type link struct {
	mu       sync.Mutex
	near, up net.Conn // up is nil if it was lost from the beginning
	lost     bool
	bytes    int // that came since
}

func newLossy(t testing.TB, upstream string) *lossy {
	t.Helper()
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	x := &lossy{listen: l.Addr().String(), upstream: upstream}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			x.accept(conn, &running)
		}
	})
	t.Cleanup(func() {
		l.Close()
		x.close()
		running.Wait()
	})
	return x
}

func (x *lossy) accept(conn net.Conn, running *sync.WaitGroup) {
	x.mu.Lock()
	defer x.mu.Unlock()
	k := &link{near: conn, lost: x.losing}
	x.links = append(x.links, k)
	if k.lost {
		return
	}
	up, err := net.Dial("tcp", x.upstream)
	if err != nil || x.closed {
		conn.Close()
		return
	}
	k.up = up
	running.Go(func() { k.pass(k.near, up) })
	running.Go(func() { k.pass(up, k.near) })
}

// pass carries what comes from one end to the other, and that it ends, until the connection is lost.
func (k *link) pass(to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		k.mu.Lock()
		lost := k.lost
		if lost {
			k.bytes += n
		}
		k.mu.Unlock()
		switch {
		case lost && err != nil:
			return
		case lost:
		case err != nil:
			to.Close()
			return
		default:
			to.Write(buffer[:n])
		}
	}
}

// lose loses all connections that there are and, until it is told otherwise, all that come.
func (x *lossy) lose(yes bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.losing = yes
	for _, k := range x.links {
		k.mu.Lock()
		k.lost = k.lost || yes
		k.mu.Unlock()
	}
}

// lost returns how many bytes came over connections that are lost.
func (x *lossy) lost() (n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, k := range x.links {
		k.mu.Lock()
		n += k.bytes
		k.mu.Unlock()
	}
	return n
}

func (x *lossy) close() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.closed = true
	for _, k := range x.links {
		k.near.Close()
		if k.up != nil {
			k.up.Close()
		}
	}
}
