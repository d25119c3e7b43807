package vault

import (
	"context"
	"time"
)

// late is how long an answer may take before the question is put again, over a new connection. One that a proxy or a firewall
// has lost track of is silent for ever, and waiting for it would cost all the time that a request may take.
const late = 1500 * time.Millisecond

// hedged is send for a question that may be put more than once. While the answer is late it puts it again; whichever answer
// comes first is the answer. A store that is merely slow has time to give the first one, whatever becomes of the others.
func (c *client) hedged(ctx context.Context, q request) ([]byte, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var again struct {
		body []byte
		err  error
	}
	overtaken := make(chan bool, 1)
	timer := time.AfterFunc(late, func() {
		again.body, again.err = c.insist(ctx, q)
		overtaken <- ctx.Err() == nil
		stop()
	})
	body, err := c.send(ctx, q)
	if timer.Stop() {
		return body, err
	}
	stop()
	if <-overtaken && err != nil {
		return again.body, again.err
	}
	clear(again.body)
	return body, err
}

// insist puts q over one new connection after the other until it is answered: that there is no connection, or no store that
// can answer, is no answer, since the first question may still get one. Of all who would like to, one at a time does: that is
// enough to find out whether the store answers, and adds little to the load of one that is slow.
func (c *client) insist(ctx context.Context, q request) ([]byte, error) {
	select {
	case c.hedging <- struct{}{}:
		defer func() { <-c.hedging }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for {
		c.transport.CloseIdleConnections() // they may be as silent
		bounded, cancel := context.WithTimeout(ctx, late)
		body, err := c.send(bounded, q)
		_, refused := undecided(err)
		if err != nil && !refused {
			<-bounded.Done() // no more often than that
		}
		cancel()
		if err == nil || refused || ctx.Err() != nil {
			return body, err
		}
	}
}
