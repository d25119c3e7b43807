package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/keyturn/keyturn/examples/quickstart/internal/report"
	"github.com/keyturn/keyturn/examples/quickstart/internal/stage"
)

// painter draws reports with examples/quickstart/plot, a module of its own, so that the product's go.mod needs no plotting
// library.
type painter struct{ dir, program string }

// newPainter builds the program, so that a drill doesn't run for minutes to find that it can't be drawn.
func newPainter(ctx context.Context, file string, s *screen) (_ *painter, err error) {
	p := &painter{}
	if file == "" {
		return p, nil
	}
	if p.dir, err = os.MkdirTemp("", "keyturn-plot-"); err != nil {
		return nil, err
	}
	p.program = filepath.Join(p.dir, "plot")
	s.Say("building the program that draws")
	if err := stage.Build(ctx, "examples/quickstart/plot", p.program, s); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *painter) paint(ctx context.Context, r report.Report, file string) error {
	if file == "" {
		return nil
	}
	cmd := exec.CommandContext(ctx, p.program, file)
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return err
	}
	err = errors.Join(r.Write(in), in.Close())
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return fmt.Errorf("draw %s: %w: %s", file, err, strings.TrimSpace(said.String()))
	}
	return nil
}

func (p *painter) close() error { return os.RemoveAll(p.dir) }
