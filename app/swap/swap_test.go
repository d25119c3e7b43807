package swap_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/app/swap"
)

// thing knows whether it has been retired.
type thing struct {
	name    string
	retired atomic.Int32
}

// open returns a handle of things and the names of those that were retired, in order. The list is for one goroutine.
func open() (*swap.Handle[*thing], *[]string) {
	var order []string
	return swap.New(func(v *thing) {
		v.retired.Add(1)
		order = append(order, v.name)
	}), &order
}

func acquire(t *testing.T, h *swap.Handle[*thing], want string) swap.Lease[*thing] {
	t.Helper()
	lease, ok := h.Acquire()
	if !ok || lease.Value().name != want {
		t.Fatalf("acquired %v (%v), want %s", lease, ok, want)
	}
	return lease
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestNothingCanBeLeasedBeforeTheFirst(t *testing.T) {
	h, _ := open()
	if _, ok := h.Acquire(); ok {
		t.Error("an empty handle gave a lease")
	}
	if _, ok := h.AcquirePredecessor(); ok {
		t.Error("an empty handle gave a predecessor")
	}
	if g := h.Publish(&thing{name: "first"}); g != 1 {
		t.Errorf("the first generation is %d", g)
	}
	if _, ok := h.AcquirePredecessor(); ok {
		t.Error("the first generation has a predecessor")
	}
	lease := acquire(t, h, "first")
	if lease.Generation() != 1 {
		t.Errorf("generation %d", lease.Generation())
	}
	lease.Release()
}

func TestAGenerationIsRetiredWithItsLastLease(t *testing.T) {
	h, retired := open()
	h.Publish(&thing{name: "1"})
	one, again := acquire(t, h, "1"), acquire(t, h, "1")
	h.Publish(&thing{name: "2"})
	h.Publish(&thing{name: "3"}) // 2 is the predecessor, 1 is out
	if h.Draining() != 1 || len(*retired) != 0 {
		t.Errorf("%d are draining, and %v retired, while 1 is leased twice", h.Draining(), *retired)
	}
	one.Release()
	if len(*retired) != 0 {
		t.Errorf("%v retired while it is still leased", *retired)
	}
	again.Release()
	if h.Draining() != 0 || !slices.Equal(*retired, []string{"1"}) {
		t.Errorf("%d are draining, and %v retired, after the last lease of 1", h.Draining(), *retired)
	}
}

func TestOnePredecessorStaysLeasableUntilItIsDropped(t *testing.T) {
	h, retired := open()
	h.Publish(&thing{name: "1"})
	h.Publish(&thing{name: "2"})
	lease, ok := h.AcquirePredecessor()
	if !ok || lease.Value().name != "1" || lease.Generation() != 1 {
		t.Fatalf("predecessor: %v, %v", lease, ok)
	}
	h.Drop(2) // the current one, and one that never was, are nobody's predecessor
	h.Drop(7)
	h.Drop(1)
	if _, ok := h.AcquirePredecessor(); ok || h.Draining() != 1 {
		t.Errorf("a dropped predecessor is leasable: %v, %d draining", ok, h.Draining())
	}
	lease.Release()
	h.Drop(1)
	acquire(t, h, "2").Release()
	if !slices.Equal(*retired, []string{"1"}) {
		t.Errorf("%v retired", *retired)
	}
}

// A key that was refused must not push out the one that still serves.
func TestReplaceKeepsThePredecessorAndDropsTheCurrent(t *testing.T) {
	h, retired := open()
	h.Publish(&thing{name: "good"})
	h.Publish(&thing{name: "bad"})
	if g := h.Replace(&thing{name: "better"}); g != 3 {
		t.Errorf("generation %d, want 3", g)
	}
	acquire(t, h, "better").Release()
	lease, ok := h.AcquirePredecessor()
	if !ok || lease.Value().name != "good" {
		t.Errorf("predecessor: %v, %v", lease, ok)
	}
	lease.Release()
	if !slices.Equal(*retired, []string{"bad"}) {
		t.Errorf("%v retired, want bad", *retired)
	}
}

func TestAfterIsClosedByANewerGeneration(t *testing.T) {
	h, _ := open()
	first := h.After(0)
	if isClosed(first) {
		t.Error("there is no generation after 0 yet")
	}
	h.Publish(&thing{})
	if !isClosed(first) || !isClosed(h.After(0)) {
		t.Error("generation 1 is after 0, whether it is asked before or later")
	}
	second := h.After(1)
	h.Publish(&thing{})
	if !isClosed(second) || isClosed(h.After(2)) {
		t.Error("generation 2 is after 1 and not after 2")
	}
	last := h.After(2)
	h.Close(t.Context())
	if !isClosed(last) || !isClosed(h.After(99)) {
		t.Error("nobody may wait for a closed handle")
	}
}

func TestCloseWaitsForTheLeases(t *testing.T) {
	h, retired := open()
	h.Publish(&thing{name: "1"})
	h.Publish(&thing{name: "2"})
	lease := acquire(t, h, "2")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Close(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("2 is leased, and Close says %v", err)
	}
	if _, ok := h.Acquire(); ok {
		t.Error("a closed handle gave a lease")
	}
	lease.Release()
	for range 2 {
		if err := h.Close(t.Context()); err != nil {
			t.Errorf("nothing is leased, and Close says %v", err)
		}
	}
	late := &thing{name: "late"}
	if g := h.Publish(late); g != 0 || late.retired.Load() != 1 {
		t.Errorf("a closed handle took generation %d", g)
	}
	if !slices.Equal(*retired, []string{"1", "2", "late"}) {
		t.Errorf("%v retired", *retired)
	}
}

func TestAHandleThatNeverHadAValueCloses(t *testing.T) {
	if err := swap.New[int](nil).Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// Readers lease, use and release while generations come and go; none may ever see one that was retired, and each is
// retired once.
func TestNobodyHoldsWhatWasRetired(t *testing.T) {
	const generations, readers = 20_000, 8
	h := swap.New(func(v *thing) { v.retired.Add(1) })
	all := make([]*thing, generations)
	h.Publish(&thing{})
	var stop atomic.Bool
	var group sync.WaitGroup
	for range readers {
		group.Go(func() {
			for !stop.Load() {
				lease, ok := h.Acquire()
				if !ok || lease.Value().retired.Load() != 0 {
					t.Error("leased what was retired")
					return
				}
				if before, ok := h.AcquirePredecessor(); ok {
					if before.Value().retired.Load() != 0 {
						t.Error("leased a predecessor that was retired")
					}
					before.Release()
				}
				if lease.Value().retired.Load() != 0 {
					t.Error("retired while it was leased")
				}
				lease.Release()
			}
		})
	}
	for i := range all {
		all[i] = &thing{}
		g := h.Publish(all[i])
		if i%3 == 0 {
			h.Drop(g - 1)
		}
	}
	stop.Store(true)
	group.Wait()
	if err := h.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, v := range all {
		if n := v.retired.Load(); n != 1 {
			t.Fatalf("generation %d was retired %d times", i+2, n)
		}
	}
}

func TestAcquireAllocatesNothing(t *testing.T) {
	h, _ := open()
	h.Publish(&thing{name: "1"})
	if n := testing.AllocsPerRun(1000, func() {
		lease, _ := h.Acquire()
		lease.Release()
	}); n != 0 {
		t.Errorf("%v allocations for a lease", n)
	}
}

// BenchmarkAcquire is one lease, taken and given back.
func BenchmarkAcquire(b *testing.B) {
	h := swap.New[*thing](nil)
	h.Publish(&thing{})
	b.ReportAllocs()
	for b.Loop() {
		lease, _ := h.Acquire()
		lease.Release()
	}
}

// BenchmarkAcquireContended is the same from many goroutines at once, with a new generation every so often.
func BenchmarkAcquireContended(b *testing.B) {
	h := swap.New[*thing](nil)
	h.Publish(&thing{})
	b.ReportAllocs()
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			lease, _ := h.Acquire()
			lease.Release()
			if i%100_000 == 0 {
				h.Publish(&thing{})
			}
		}
	})
}
