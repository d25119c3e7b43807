package keyfile

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"syscall"

	"github.com/fsnotify/fsnotify"
)

// watch is the subscription to one directory: to whichever is at its path, as follow finds it.
type watch struct {
	dir      string
	log      *slog.Logger
	notifier func() (*fsnotify.Watcher, error)
	woken    chan struct{} // capacity one: events only say that it is time to look

	events  *fsnotify.Watcher // nil if there is none, and then the tick is all there is
	watched fs.FileInfo       // the directory that events come from
	forward sync.WaitGroup
	failure string // that was logged; empty while all is well
}

// follow subscribes to the directory that is at the path, unless that is done. A directory that was deleted and made again
// may have its old inode number; its watch is gone then, and fsnotify has noticed that.
func (w *watch) follow() {
	info, err := os.Stat(w.dir)
	if err == nil && w.events != nil && os.SameFile(info, w.watched) && len(w.events.WatchList()) > 0 {
		return
	}
	w.close()
	if err != nil {
		return // the look that follows says so
	}
	w.watched = info
	w.report(w.open())
}

func (w *watch) open() error {
	events, err := w.notifier()
	if err != nil {
		return err
	}
	if err := events.Add(w.dir); err != nil {
		events.Close()
		return err
	}
	w.events = events
	w.forward.Go(func() { forward(events, w.woken) })
	return nil
}

// close ends the subscription, if there is one, and waits until it has ended.
func (w *watch) close() {
	if w.events == nil {
		return
	}
	w.events.Close() // which closes its channels, and has no error of use
	w.forward.Wait()
	w.events = nil
}

// report logs why there is no subscription, once a reason, and that there is one again.
func (w *watch) report(err error) {
	switch {
	case err == nil && w.failure != "":
		w.failure = ""
		w.log.Info("the key file's directory is watched again", "dir", w.dir)
	case err != nil && err.Error() != w.failure:
		w.failure = err.Error()
		w.log.Warn("the key file's directory can't be watched, so a new key is noticed a tick late",
			"dir", w.dir, "err", err, "mend", mend(err))
	}
}

func mend(err error) string {
	switch {
	case errors.Is(err, syscall.EMFILE):
		return "raise fs.inotify.max_user_instances, or the process's limit of open files"
	case errors.Is(err, syscall.ENOSPC):
		return "raise fs.inotify.max_user_watches"
	case errors.Is(err, fs.ErrPermission):
		return "let the process list the directory: chown it, mode 0700"
	}
	return "see inotify(7)"
}

// forward turns what events says into wake-ups until it is closed. An error, an overflow for instance, is one more reason
// to look.
func forward(events *fsnotify.Watcher, woken chan<- struct{}) {
	for {
		var open bool
		select {
		case _, open = <-events.Events:
		case _, open = <-events.Errors:
		}
		if !open {
			return
		}
		select {
		case woken <- struct{}{}:
		default:
		}
	}
}
