package secret

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
)

func newMemory(t *testing.T) *Memory {
	t.Helper()
	m, err := NewMemory()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func keep(t *testing.T, m *Memory, b []byte) Value {
	t.Helper()
	v, err := m.Keep(b)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAKeptValueIsACopyThatPrintsNowhere(t *testing.T) {
	m := newMemory(t)
	for _, size := range []int{0, 1, 63, 64, 65, 128, 4095, 4096} {
		b := bytes.Repeat([]byte("k"), size)
		v := keep(t, m, b)
		if !bytes.Equal(v.Reveal(), b) || v.IsZero() {
			t.Errorf("%d bytes: another value came back", size)
		}
		clear(b)
		if bytes.Contains(v.Reveal(), []byte{0}) {
			t.Errorf("%d bytes: it is the caller's slice", size)
		}
		if got := fmt.Sprintf("%v %+v %#v %s", v, v, v, v); strings.Contains(got, "kk") {
			t.Errorf("it prints: %s", got)
		}
		v.Clear()
	}
}

func TestClearedPlacesAreEmptyAndUsedAgain(t *testing.T) {
	m := newMemory(t)
	first := keep(t, m, []byte("first-secret"))
	place := first.Reveal()
	first.Clear()
	first.Clear() // a second time gives nothing back
	if !bytes.Equal(place, make([]byte, len(place))) {
		t.Error("a cleared place still holds the secret")
	}
	for range 10_000 {
		a, b := keep(t, m, []byte("one")), keep(t, m, []byte("two"))
		if string(a.Reveal()) != "one" || string(b.Reveal()) != "two" {
			t.Fatal("two values share a place")
		}
		a.Clear()
		b.Clear()
	}
	if places := len(m.free[0]); places != os.Getpagesize()/smallest {
		t.Errorf("there are %d places for two small values, and a page has %d", places, os.Getpagesize()/smallest)
	}
}

func TestManyValuesDontMix(t *testing.T) {
	m := newMemory(t)
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			var values []Value
			var want [][]byte
			for i := range 200 {
				b := bytes.Repeat([]byte{byte('a' + worker)}, 1+rand.IntN(600))
				v, err := m.Keep(b)
				if err != nil {
					t.Error(err)
					return
				}
				values, want = append(values, v), append(want, b)
				if i%3 == 0 {
					values[i/2].Clear()
					want[i/2] = nil
				}
			}
			for i, v := range values {
				if !bytes.Equal(v.Reveal(), want[i]) {
					t.Error("a value changed")
				}
				v.Clear()
			}
		})
	}
	group.Wait()
}

func TestWhatDoesntFitLiesInOrdinaryMemoryAndIsSaid(t *testing.T) {
	m := newMemory(t)
	large := bytes.Repeat([]byte("k"), 4097)
	if v, err := m.Keep(large); err == nil || !bytes.Equal(v.Reveal(), large) {
		t.Errorf("%v", err)
	}
	var none *Memory
	if v, err := none.Keep([]byte("k")); err != nil || string(v.Reveal()) != "k" {
		t.Errorf("%v", err)
	}
}

func TestItsPagesAreLocked(t *testing.T) {
	m := newMemory(t)
	defer keep(t, m, []byte("k")).Clear()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(status), "VmLck:\t       0 kB") {
		t.Error("nothing is locked")
	}
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	for _, flag := range []string{"lo", "dd", "wf"} { // locked, don't dump, wipe on fork (proc_pid_smaps(5))
		if !strings.Contains(string(maps), " "+flag+" ") {
			t.Errorf("no mapping has the flag %s", flag)
		}
	}
}
