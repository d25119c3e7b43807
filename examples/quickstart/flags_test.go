package main

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/examples/quickstart/internal/drill"
)

func full() drillConfig {
	return drillConfig{sdks: strings.Join(sdks(), ","), weathers: strings.Join(weathers(), ","), rotations: 500, rate: 500, streams: 0.2,
		interval: 420 * time.Millisecond, poll: 15 * time.Second, latency: true}
}

func TestTheFullDrillIsAsLongAsItPromises(t *testing.T) {
	runs, err := full().plan()
	if err != nil || len(runs) != 10 {
		t.Fatalf("%d runs, %v", len(runs), err)
	}
	revoked, unary := 0, 0
	for _, c := range runs {
		switch {
		case c.Weather == drill.Revoked && c.Streams > 0:
			revoked++
			if requests := time.Duration(c.Rotations) * c.Interval * time.Duration(c.Rate); c.Rotations < 500 || requests < 100_000*time.Second {
				t.Errorf("%s: %d rotations, %v requests", c.SDK, c.Rotations, requests.Seconds())
			}
		case c.Weather == drill.Revoked:
			unary++
			if c.Rate < 200 || c.Rotations < 100 {
				t.Errorf("latency is measured at %d/s across %d rotations", c.Rate, c.Rotations)
			}
		}
		if c.Weather == drill.Revoked && c.Poll != 15*time.Second {
			t.Errorf("the poll interval is %v: the store must not be asked by chance", c.Poll)
		}
	}
	if revoked != len(sdks()) || unary != len(sdks()) {
		t.Errorf("%d full runs, %d for latency", revoked, unary)
	}
}

func TestAShortDrillMakesNoMoreRotationsThanItWasTold(t *testing.T) {
	c := full()
	c.rotations = 3
	runs, err := c.plan()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range runs {
		if r.Rotations > 3 {
			t.Errorf("%s: %d rotations", r.Weather, r.Rotations)
		}
	}
}

func TestWrongFlagsAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"a weather":      {[]string{"drill", "-weather", "revoked,storm"}, `-weather: "storm" is none of overlap`},
		"an SDK":         {[]string{"drill", "-sdk", "openai"}, `-sdk: "openai" is none of generative-ai-go, genai`},
		"an empty list":  {[]string{"drill", "-weather="}, "-weather"},
		"rotations":      {[]string{"drill", "-rotations", "0"}, "-rotations"},
		"a rate":         {[]string{"drill", "-rate", "1000000"}, "-rate"},
		"a share":        {[]string{"drill", "-streams", "2"}, "-streams"},
		"a poll":         {[]string{"drill", "-poll", "1ms"}, "-poll"},
		"a picture":      {[]string{"drill", "-plot", "x.gif"}, "-plot"},
		"a word":         {[]string{"drill", "now"}, `"now" is no flag`},
		"a flag":         {[]string{"-speed", "3"}, "speed"},
		"a command":      {[]string{"dril"}, `no command "dril"`},
		"the demo's SDK": {[]string{"-sdk", "openai"}, "-sdk"},
	} {
		var out bytes.Buffer
		err := run(t.Context(), c.args, &out)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if code := exitCode(err, &out); code != exitUsage {
			t.Errorf("%s: exit code %d", name, code)
		}
	}
}

func TestHelpNamesEveryFlagAndIsNoFailure(t *testing.T) {
	for command, want := range map[string][]string{
		"demo":  {"GEMINI_API_KEYS_FILE", "VAULT_BIN", "XDG_RUNTIME_DIR", "-sdk", "-agent"},
		"drill": {"overlap", "delayed", "outage", "revoked", "-rotations", "-rate", "-json", "-plot", "-streams", "-interval", "-latency"},
	} {
		var out bytes.Buffer
		err := run(t.Context(), []string{command, "-h"}, &out)
		if !errors.Is(err, flag.ErrHelp) || exitCode(err, &out) != exitDone {
			t.Errorf("%s: %v", command, err)
		}
		for _, w := range want {
			if !strings.Contains(out.String(), w) {
				t.Errorf("%s: the help doesn't speak of %s", command, w)
			}
		}
	}
}

func TestTwoRealKeysAreReadFromAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	t.Setenv("GOOGLE_GEMINI_BASE_URL", "http://127.0.0.1:1")
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:2")
	for content, good := range map[string]bool{
		"first\nsecond\n": true, "first\r\nsecond": true, "": false, "first\n": false, "first\nfirst\n": false, "first\nsecond\nthird\n": false,
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		api, err := realAPI(path)
		switch {
		case good && (err != nil || api.Keys != [2]string{"first", "second"} || api.BaseURL != "http://127.0.0.1:1"):
			t.Errorf("%q: %+v, %v", content, api, err)
		case good && !slices.Contains(api.Environ, "HTTPS_PROXY=http://127.0.0.1:2"):
			t.Errorf("the way there is %v", api.Environ)
		case !good && err == nil:
			t.Errorf("%q was taken", content)
		case !good && strings.Contains(err.Error(), "first"):
			t.Errorf("the error quotes a key: %v", err)
		}
	}
	if _, err := realAPI(filepath.Join(t.TempDir(), "nothing")); err == nil {
		t.Error("a file that doesn't exist was read")
	}
}
