package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The tests' go command is this test binary, which FAKE_GO tells how to behave. FAKE_LOG names a file in which it notes
// each build, with the process ids of itself and a child.
func TestMain(m *testing.M) {
	if how := os.Getenv("FAKE_GO"); how != "" && len(os.Args) > 1 {
		os.Exit(fakeGo(how, os.Args[1:]))
	}
	os.Exit(m.Run())
}

const fakeVersion = "v9.9.9"

func fakeGo(how string, args []string) int {
	switch {
	case args[0] == "list" && args[1] == "-m":
		fmt.Println(fakeVersion)
	case args[0] == "list":
		fmt.Fprint(os.Stderr, "go: downloading example.com/a v1.0.0\ngo: downloading example.com/b v1.0.0\n")
		fmt.Print("a\nb\nc\n" + vault + "\n")
	case args[0] == "build":
		return fakeBuild(how, args)
	default:
		<-time.After(time.Hour) // the child of a build
	}
	return 0
}

func fakeBuild(how string, args []string) int {
	child := 0
	if how == "slow" {
		compiler := exec.Command(os.Args[0], "compile")
		compiler.Stderr = os.Stderr // as a compiler would, it holds the pipe open
		if compiler.Start() != nil {
			return 3
		}
		child = compiler.Process.Pid
	}
	out := args[len(args)-2]
	os.WriteFile(out, []byte("half"), 0o600)
	log, err := os.OpenFile(os.Getenv("FAKE_LOG"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 3
	}
	fmt.Fprintln(log, os.Getpid(), child)
	switch how {
	case "slow":
		<-time.After(time.Hour)
	case "fail":
		fmt.Fprint(os.Stderr, strings.Repeat("example.com/a\n", 100)+"# example.com/b\nb.go:1:1: undefined: x\n")
		return 1
	}
	fmt.Fprint(os.Stderr, "a\nb\n"+vault+"\n")
	os.WriteFile(out, []byte("#!/bin/sh\n"), 0o600)
	os.Chmod(out, 0o700)
	return 0
}

// fake returns a builder that runs fakeGo, what it prints, and the file of its builds.
func fake(t *testing.T, how string) (*builder, *bytes.Buffer, string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "log")
	t.Setenv("FAKE_GO", how)
	t.Setenv("FAKE_LOG", log)
	t.Setenv("GORACE", "atexit_sleep_ms=0") // each fake would take a second to end
	var out bytes.Buffer
	return &builder{goTool: self, dir: filepath.Join(t.TempDir(), "cache", "keyturn"), progress: &progress{w: &out}}, &out, log
}

// builds returns how many were begun.
func builds(t *testing.T, log string) int {
	t.Helper()
	b, err := os.ReadFile(log)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return bytes.Count(b, []byte("\n"))
}

// assertNothingLeft wants no file in the builder's directory but the lock's, and what is kept.
func assertNothingLeft(t *testing.T, b *builder, kept ...string) {
	t.Helper()
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		path := filepath.Join(b.dir, e.Name())
		if !strings.HasSuffix(path, ".lock") && !(len(kept) == 1 && kept[0] == path) {
			t.Errorf("%s was left behind", path)
		}
	}
}

func TestTheBinaryIsBuiltOnceAndFoundAfterwards(t *testing.T) {
	b, out, log := fake(t, "good")
	first, err := b.binary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(first, fakeVersion) || !isProgram(first) {
		t.Errorf("%s is no program that carries its version", first)
	}
	if lines := strings.Count(out.String(), "\n"); lines != 2 || strings.ContainsAny(out.String(), "\r\x1b") {
		t.Errorf("a log got %d lines, want a quiet two:\n%q", lines, out)
	}
	out.Reset()
	again, err := b.binary(t.Context())
	if err != nil || again != first || out.Len() > 0 {
		t.Errorf("the second time: %s, %v, %q", again, err, out)
	}
	if n := builds(t, log); n != 1 {
		t.Errorf("it was built %d times", n)
	}
	assertNothingLeft(t, b, first)
}

func TestATerminalShowsHowFarItIsInOneLine(t *testing.T) {
	b, out, _ := fake(t, "good")
	b.progress.terminal = true
	if _, err := b.binary(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"downloading, 2 modules so far", "compiling, 2 of at most 4 packages", "linking" + clearLine} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q was not shown in %q", want, out)
		}
	}
	if lines := strings.Count(out.String(), "\n"); lines != 2 {
		t.Errorf("%d lines stay, want 2: %q", lines, out)
	}
}

func TestRunsAtTheSameTimeBuildOnce(t *testing.T) {
	first, _, log := fake(t, "good")
	var all sync.WaitGroup
	for range 8 {
		b := *first
		b.progress = &progress{w: &bytes.Buffer{}}
		all.Go(func() {
			if path, err := b.binary(t.Context()); err != nil || !isProgram(path) {
				t.Errorf("%s, %v", path, err)
			}
		})
	}
	all.Wait()
	if n := builds(t, log); n != 1 {
		t.Errorf("8 runs built it %d times", n)
	}
}

func TestAFailedBuildSaysWhyAndLeavesNothing(t *testing.T) {
	b, _, log := fake(t, "fail")
	_, err := b.binary(t.Context())
	if err == nil || !strings.Contains(err.Error(), "undefined: x") || strings.Count(err.Error(), "\n") > tail+1 {
		t.Errorf("%v, want the end of what the go command said", err)
	}
	assertNothingLeft(t, b)

	b.goTool = filepath.Join(t.TempDir(), "go")
	if _, err := b.binary(t.Context()); err == nil {
		t.Error("without a go command there is a binary")
	}
	if n := builds(t, log); n != 1 {
		t.Errorf("%d builds", n)
	}
}

// Ctrl-C leaves no process and no half binary, and the next run starts afresh.
func TestAnInterruptedBuildLeavesNothing(t *testing.T) {
	b, _, log := fake(t, "slow")
	ctx, cancel := context.WithCancel(t.Context())
	outcome := make(chan error, 1)
	go func() {
		_, err := b.binary(ctx)
		outcome <- err
	}()
	eventually(t, "the build has begun", func() bool { return builds(t, log) == 1 })
	var pid, child int
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Sscan(string(text), &pid, &child)

	// Meanwhile another run waits, and can be interrupted as well.
	waiting := *b
	waiting.progress = &progress{w: &bytes.Buffer{}}
	bounded, stop := context.WithTimeout(t.Context(), 3*lockTick)
	defer stop()
	if _, err := waiting.binary(bounded); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a run beside a build: %v", err)
	}

	cancel()
	if err := <-outcome; !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that it was interrupted", err)
	}
	for _, p := range []int{pid, child} {
		eventually(t, fmt.Sprintf("process %d is gone", p), func() bool { return p > 0 && ended(p) })
	}
	assertNothingLeft(t, b)
	t.Setenv("FAKE_GO", "good")
	if path, err := b.binary(t.Context()); err != nil || !isProgram(path) {
		t.Errorf("the next run: %s, %v", path, err)
	}
}

// ended reports whether a process is gone, or dead and not yet reaped by whoever inherited it.
func ended(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

func TestWhatAKilledRunLeftIsSwept(t *testing.T) {
	b, _, _ := fake(t, "good")
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(b.dir, "vault-"+fakeVersion+"-linux-amd64")
	for _, name := range []string{path + temporaryMark + "17", path} { // the second is no program
		if err := os.WriteFile(name, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := b.binary(t.Context())
	if err != nil || !isProgram(got) {
		t.Fatalf("%s, %v", got, err)
	}
	assertNothingLeft(t, b, got)
}

// The real go command and the real go.mod.
func TestGoModNamesTheVersion(t *testing.T) {
	b := builder{goTool: "go", progress: &progress{w: &bytes.Buffer{}}}
	version, err := b.version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(version, "v1.") || !strings.Contains(string(mod), vault+" "+version) {
		t.Errorf("%q is not what go.mod says", version)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("it never came to this: %s", what)
		}
	}
}
