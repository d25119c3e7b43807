package porttest

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

func TestAReservedPortIsHadByNameAgainAndAgainAndOtherwiseByNobody(t *testing.T) {
	ours := map[string]bool{}
	for range 500 {
		ours[Loopback(t)] = true
	}
	var others []net.Listener
	for range 500 { // of some 28,000 that there are: some would be ours
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		others = append(others, l)
		if ours[l.Addr().String()] {
			t.Errorf("%s was taken", l.Addr())
		}
	}
	for _, l := range others {
		l.Close()
	}
	address := Loopback(t)
	for range 3 {
		if _, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("nobody listens, and Dial says %v", err)
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := net.Listen("tcp", address); err == nil {
			second.Close()
			t.Error("two listen on it")
		}
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		l.Close()
	}
}
