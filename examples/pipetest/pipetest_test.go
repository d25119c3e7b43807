package pipetest

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhoWaitsForAConnectionLetsTimePass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, began := Listen(t), time.Now()
		time.AfterFunc(time.Hour, func() {
			if c, err := Dial(t.Context(), "tcp", l.Address()); err != nil || c.Close() != nil {
				t.Error(err)
			}
		})
		c, err := l.Accept()
		if err != nil || time.Since(began) != time.Hour {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
		c.Close()
	})
}

func TestNobodyConnectsToAListenerThatIsClosedOrBusyForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Listen(t)
		bounded, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := Dial(bounded, "tcp", l.Address()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("nobody accepts: %v", err)
		}
		l.Close()
		if _, err := Dial(t.Context(), "tcp", l.Address()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("it is closed: %v", err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("it is closed: %v", err)
		}
	})
}
