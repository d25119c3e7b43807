package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// golden is what the drill writes, held by a test of its own.
const golden = "../internal/report/testdata/report.json"

func paint(t *testing.T, name string) []byte {
	t.Helper()
	report, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := runMain([]string{path}, bytes.NewReader(report)); err != nil {
		t.Fatal(err)
	}
	picture, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return picture
}

func TestAReportBecomesAWellFormedSVG(t *testing.T) {
	picture := paint(t, "drill.svg")
	for d := xml.NewDecoder(bytes.NewReader(picture)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"3 of 1,700 requests failed across 2 rotations", "FAILED", "revoked, generative-ai-go", "outage, genai",
		"at most: agent 14 MiB, app 25 MiB", "1,500 requests, 2 rescued, 0 failed", "broken off: rotation 1 of 6", "Vault 1.21.1", "Helvetica"} {
		if !strings.Contains(string(picture), want) {
			t.Errorf("the picture doesn't say %q", want)
		}
	}
}

func TestAReportBecomesAPNG(t *testing.T) {
	picture, err := png.Decode(bytes.NewReader(paint(t, "drill.png")))
	if err != nil {
		t.Fatal(err)
	}
	if size := picture.Bounds().Size(); size.X < 1000 || size.Y < 500 {
		t.Errorf("the picture is %v", size)
	}
}

func TestWhatCannotBeDrawnIsAnErrorAndNoFile(t *testing.T) {
	for name, c := range map[string]struct{ file, report, says string }{
		"no JSON":        {"x.svg", "hello", "no report"},
		"another format": {"x.svg", `{"Format": 99}`, "format 99"},
		"no runs":        {"x.svg", `{"Format": 1}`, "no runs"},
		"another kind":   {"x.bmp", `{"Format": 1, "Runs": [{"Weather": "overlap"}]}`, ".svg or .png"},
	} {
		path := filepath.Join(t.TempDir(), c.file)
		err := runMain([]string{path}, strings.NewReader(c.report))
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s: there is a file", name)
		}
	}
}

// An empty run has nothing to scale its axes by.
func TestARunWithoutRequestsIsDrawn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.svg")
	if err := runMain([]string{path}, strings.NewReader(`{"Format": 1, "Runs": [{}]}`)); err != nil {
		t.Fatal(err)
	}
}

func TestAxesHaveFewRoundMarks(t *testing.T) {
	for high, want := range map[float64]string{540: "0 200 400", 3: "0 1 2 3", 0.7: "0 0.5", 210: "0 100 200"} {
		var got []string
		for _, tick := range few(3).Ticks(0, high) {
			got = append(got, tick.Label)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("up to %v: %v, want %s", high, got, want)
		}
	}
}
