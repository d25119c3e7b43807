package server

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"strings"
	"syscall"
)

// acceptor says once that nobody can be accepted, and once that it goes on: net/http tries again as long as that may help, and
// would log each attempt.
type acceptor struct {
	net.Listener
	log     *slog.Logger
	failing bool // for the one goroutine that accepts
}

// Accept implements net.Listener.
func (a *acceptor) Accept() (net.Conn, error) {
	conn, err := a.Listener.Accept()
	code, isErrno := errors.AsType[syscall.Errno](err)
	switch {
	case err == nil && a.failing:
		a.failing = false
		a.log.Info("connections are accepted again")
	case isErrno && !a.failing:
		a.failing = true
		a.log.Warn("no connection can be accepted; trying again", "reason", code.Error())
	}
	return conn, err
}

// errorLog is where net/http logs to.
type errorLog struct{ log *slog.Logger }

// Write implements io.Writer.
func (e errorLog) Write(line []byte) (int, error) {
	if !bytes.HasPrefix(line, []byte("http: Accept error")) {
		e.log.Warn(strings.TrimSpace(string(line)))
	}
	return len(line), nil
}
