package secret

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"sync"
	"syscall"
)

// Memory keeps values out of swap and core files, in pages of its own: locked, left out of dumps, and zero in a child
// (mlock(2), madvise(2)). Use NewMemory. It is safe for concurrent use.
//
// Pages are never given back: they are as many as the values ever needed at once.
type Memory struct {
	mu   sync.Mutex
	free [classes][][]byte // places, by the class of their size
}

const (
	// smallest is the size of the smallest place; each class has places twice as large as the one before.
	smallest = 64
	classes  = 7 // up to 4 KiB, which is a page and the most that a rendered file holds
	// Advice that package syscall has no names for (linux/mman.h).
	dontDump, wipeOnFork = 16, 18
)

// NewMemory returns a Memory that has locked its first page. An error says that this process may lock none: the limit is
// RLIMIT_MEMLOCK.
func NewMemory() (*Memory, error) {
	m := &Memory{}
	return m, m.grow(0)
}

// Keep copies b to a place of its own and returns it as a Value, whose Clear gives the place back. If b is larger than 4 KiB
// or no more memory may be locked, the Value lies in ordinary memory, and the error says so. A nil Memory has no places,
// and that is no error.
func (m *Memory) Keep(b []byte) (Value, error) {
	if m == nil {
		return New(b), nil
	}
	class := max(0, bits.Len(uint(max(len(b), 1)-1))-bits.Len(uint(smallest-1)))
	if class >= classes {
		return New(b), errors.New("a value of more than 4 KiB is not kept in locked memory")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.free[class]) == 0 {
		if err := m.grow(class); err != nil {
			return New(b), err
		}
	}
	last := len(m.free[class]) - 1
	place := m.free[class][last]
	m.free[class] = m.free[class][:last]
	held := append(place[:0], b...)
	return Value{
		bytes: func() *[]byte { return &held },
		giveBack: func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.free[class] = append(m.free[class], place)
		},
	}, nil
}

// grow locks one more page and cuts it into places. The caller holds mu, or is alone.
func (m *Memory) grow(class int) error {
	page, err := syscall.Mmap(-1, 0, os.Getpagesize(), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("a page of memory can't be had: %w", err)
	}
	if err := syscall.Mlock(page); err != nil {
		syscall.Munmap(page)
		return fmt.Errorf("memory can't be locked: %w: raise the limit (ulimit -l) by a page or more", err)
	}
	for _, advice := range []int{dontDump, wipeOnFork} {
		syscall.Madvise(page, advice) // a kernel that doesn't know it does without
	}
	size := smallest << class
	for len(page) >= size {
		m.free[class] = append(m.free[class], page[:size:size])
		page = page[size:]
	}
	return nil
}
