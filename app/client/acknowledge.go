package client

import (
	"context"
	"errors"
	"time"

	"github.com/keyturn/keyturn/app/keyfile"
	"github.com/keyturn/keyturn/app/sidecar"
)

// recheck is how often the agent's socket is looked at: an agent that was started anew knows of no acknowledgement.
const recheck = time.Second

// acknowledgement is what was said to whom.
type acknowledgement struct {
	file keyfile.Identity
	to   sidecar.Instance
}

// acknowledgeFirstUse tells the agent which file's key is in use: after a generation's first success, when its file has
// another identity, and when the agent has another socket. What fails is tried again at each look.
func (c *Client) acknowledgeFirstUse(ctx context.Context) {
	tick := time.NewTicker(recheck)
	defer tick.Stop()
	var said acknowledgement
	for {
		select {
		case <-c.firstUse:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		due, at, ok := c.due()
		if !ok || due == said {
			continue
		}
		err := c.config.Agent.Acknowledge(ctx, due.file, at)
		if ctx.Err() != nil {
			return
		}
		switch {
		case err == nil:
			c.counters.acknowledged.Add(1)
			said = due
		case errors.Is(err, sidecar.ErrReplaced): // the file that it was replaced with comes by itself
			said, err = due, nil
		}
		c.noteAgent(err)
	}
}

// due returns what there is to acknowledge, and since when it is in use; false if there is nothing. That there is nobody to
// hear it is for Acknowledge to say.
func (c *Client) due() (a acknowledgement, at time.Time, ok bool) {
	l, ok := c.handle.Acquire()
	if !ok {
		return a, at, false
	}
	defer l.Release()
	first := l.Value().first.Load()
	a = acknowledgement{*l.Value().identity.Load(), c.config.Agent.Instance()}
	if first == nil {
		return a, at, false
	}
	return a, *first, true
}

// wakeAcknowledge makes acknowledgeFirstUse look.
func (c *Client) wakeAcknowledge() {
	select {
	case c.firstUse <- struct{}{}:
	default:
	}
}

// noteAgent logs once what goes wrong with the agent, and once that it is over.
func (c *Client) noteAgent(err error) {
	reason := ""
	if err != nil {
		reason = err.Error()
	}
	c.mu.Lock()
	before := c.agentProblem
	c.agentProblem = reason
	c.mu.Unlock()
	switch {
	case reason == before:
	case err != nil:
		c.config.Log.Warn("the agent can't be asked; keys come from the file alone", "reason", reason)
	default:
		c.config.Log.Info("the agent answers again")
	}
}
