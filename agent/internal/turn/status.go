package turn

import (
	"time"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/source"
)

// Status is a Loop's state at one moment. It says nothing of any value.
type Status struct {
	// Outage is what the store as a whole fails with, nil while it answers.
	Outage *source.Error
	// Failures counts failed reads by kind since the start.
	Failures map[source.Kind]uint64
	// Files are in the order of Config.Secrets.
	Files []FileStatus
}

// FileStatus is the state of one rendered file. Zero times mean: not yet.
type FileStatus struct {
	File string
	Ref  secret.Ref
	// Stored is the version that the store answered with last, unless that may be the answer of a standby that lags behind;
	// Published the one that is in the file.
	Stored, Published secret.Version
	// Rendered says that the file stands, with a good value.
	Rendered bool
	// Identity names the file as it was rendered last.
	Identity secret.Identity
	// Renders counts the times that the file was written.
	Renders uint64
	// Repairs counts those of them that put back what somebody had changed.
	Repairs uint64
	// Changed is when the file last got other bytes; Read when the store last answered; Next when it will be asked again.
	Changed, Read, Next time.Time
	// Unproven says why the value in force was published without proof; empty if it was proven, or acknowledged since.
	Unproven string
	// Refused: the value in force is known to be refused.
	Refused bool
	// Held is the version that the gate holds back since HeldSince, which is zero if it holds none, because of HeldReason.
	// HeldNext is when it is judged again; zero if only another value can help.
	Held       secret.Version
	HeldSince  time.Time
	HeldReason string
	HeldNext   time.Time
	// InUse is what was acknowledged last.
	InUse InUse
	// Kind and Reason say why the file waits or is stale; both are empty while it is in step with the store.
	Kind   source.Kind
	Reason string
}

// InUse is what an app says that it uses.
type InUse struct {
	Version  secret.Version
	Identity secret.Identity
	// Since is when the app first had success with it; zero if it never said so. Lag is how long that was after the render.
	Since time.Time
	Lag   time.Duration
}

// Status returns the state as it is now. It never blocks on the store, the gate or the sink.
func (l *Loop) Status() Status {
	outage, probe, failures := l.store.state()
	s := Status{Outage: outage, Failures: failures, Files: make([]FileStatus, len(l.files))}
	for i, f := range l.files {
		s.Files[i] = f.snapshot(outage)
		if outage != nil {
			s.Files[i].Next = probe
		}
	}
	return s
}

func (f *file) snapshot(outage *source.Error) FileStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, p := f.status, f.problems.first()
	s.Kind, s.Reason = p.kind, p.reason
	if outage != nil {
		s.Kind, s.Reason = outage.Kind, outage.Reason
	} else if s.Reason == "" && !s.Rendered {
		s.Reason = "the store was not read yet"
	}
	return s
}
