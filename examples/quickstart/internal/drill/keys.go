package drill

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/app/gemini/geminitest"
)

const (
	// Streams of the stand-in last for a while, so that keys are revoked beneath them.
	streamPieces   = 5
	streamInterval = 15 * time.Millisecond
)

// keys is where the keys come from, and who knows them: the stand-in, or the real API, where two take turns and nothing
// can be done to them.
type keys struct {
	standIn *geminitest.Server // nil with the real API
	real    *Real
	current string
	made    int
}

func newKeys(real *Real) *keys {
	k := &keys{real: real}
	if real == nil {
		k.standIn = geminitest.NewServer()
		k.standIn.SetStream(geminitest.Stream{Pieces: streamPieces, Interval: streamInterval})
	}
	_, first := k.turn()
	k.accept(first)
	return k
}

func (k *keys) close() {
	if k.standIn != nil {
		k.standIn.Close()
	}
}

func (k *keys) url() string {
	if k.standIn == nil {
		return k.real.BaseURL
	}
	return k.standIn.URL
}

// turn makes the next key the current one.
func (k *keys) turn() (old, key string) {
	old = k.current
	if k.real != nil {
		k.current = k.real.Keys[k.made%len(k.real.Keys)]
	} else {
		k.current = fmt.Sprintf("drill-key-%d-%s", k.made+1, rand.Text())
	}
	k.made++
	return old, k.current
}

func (k *keys) accept(key string) {
	if k.standIn != nil {
		k.standIn.Add(key)
	}
}

// acceptAfter has key refused for d, and returns when that ends.
func (k *keys) acceptAfter(key string, d time.Duration) time.Time {
	if k.standIn != nil {
		k.standIn.Delay(key, d)
	}
	return time.Now().Add(d)
}

// acceptHalf has every second request with key refused for d, and returns when that ends.
func (k *keys) acceptHalf(key string, d time.Duration) time.Time {
	if k.standIn != nil {
		k.standIn.Flap(key, 2, d)
	}
	return time.Now().Add(d)
}

func (k *keys) revoke(key string) {
	if k.standIn != nil {
		k.standIn.Revoke(key)
	}
}
