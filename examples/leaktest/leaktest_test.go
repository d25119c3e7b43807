package leaktest

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"testing"
)

const secret = "AQ.canary/+key-1234567890abcdef"

func everyForm() map[string]func(string) string {
	forms := maps.Clone(encodings)
	maps.Copy(forms, apart)
	maps.Copy(forms, dumps)
	return forms
}

func TestASecretIsFoundHoweverItIsWritten(t *testing.T) {
	for name, encode := range everyForm() {
		for _, around := range [][2]string{{"", ""}, {"before ", " after"}, {"f", "f"}, {"9", "9"}, {"%", "%"}, {`\`, `\`}, {"&", ";"}} {
			if text := around[0] + encode(secret) + around[1]; !contains(text, secret) {
				t.Errorf("%s: not found in %q", name, text)
			}
		}
		for at := range 16 {
			if text := encode(strings.Repeat("k", at) + secret + "key"); !contains(text, secret) {
				t.Errorf("%s: not found behind %d bytes in %q", name, at, text)
			}
		}
	}
}

func TestAnyTwelveBytesAreFoundAndNoEleven(t *testing.T) {
	for name, encode := range encodings {
		for at := 0; at+part <= len(secret); at++ {
			if text := "before " + encode(secret[at:at+part]) + " after"; !contains(text, secret) {
				t.Errorf("%s: not found in %q", name, text)
			}
		}
	}
	for name, encode := range encodings {
		if name == "base64 in a URL" {
			continue // %2B ends with a letter of base64, which may be the right one
		}
		for at := 1; at+part <= len(secret); at++ {
			eleven := []byte(secret[at-1 : at+part])
			eleven[0] ^= 0xff // has no bit of what stands there in the secret
			eleven[part] ^= 0xff
			text := "before " + encode(string(eleven)) + " after"
			if form, found := Find(text, secret); found {
				t.Errorf("%s: found as %q in %q", name, form, text)
			}
		}
	}
}

func TestAShortSecretIsFoundAsAWhole(t *testing.T) {
	for _, short := range []string{"404", "ready", "hvs.0123456"} {
		for name, encode := range encodings {
			if !contains(encode(short), short) {
				t.Errorf("%s: %q isn't found in %q", name, short, encode(short))
			}
		}
		if !contains("HTTP "+short+"!", short) || contains("HTTP "+short[1:]+"!", short) {
			t.Errorf("%q isn't found, or only a part of it is", short)
		}
	}
	if !contains("", "") {
		t.Error("a search for nothing passes")
	}
}

func TestWhatIsNotTheSecretIsNotFound(t *testing.T) {
	const ours, another = "canary-KJ4QZ2V7YH3XWMN5TB6RDCPLAE", "canary-PT6ERV2NQ5YJ7ZKXW3HLADBC4M"
	for name, encode := range everyForm() {
		if form, found := Find(encode(another), ours); found {
			t.Errorf("%s: found as %q where it isn't", name, form)
		}
		if form, found := Find(encode("AQ.another/+key-abcdef1234567890"), secret); found {
			t.Errorf("%s: found as %q where it isn't", name, form)
		}
	}
}

func TestNothingIsFoundInWhatProgramsSay(t *testing.T) {
	random := make([]byte, 4<<10)
	rand.NewChaCha8([32]byte{7}).Read(random)
	texts := map[string]string{"a log": ordinary(64 << 10), "a trace": string(debug.Stack()), "a dump": hex.Dump(random), "nothing": ""}
	for name, encode := range everyForm() {
		texts["random bytes, "+name] = encode(string(random))
	}
	for name, text := range texts {
		for _, s := range []string{secret, "canary-KJ4QZ2V7YH3XWMN5TB6RDCPLAE", "8f14e45f-ceea-467f-a8f0-3b7c1d2e9a56", "AQ.Ab8RN6-canary_key.must-not-leak"} {
			if form, found := Find(text, s); found {
				t.Errorf("%s: %s is found as %q", name, s, form)
			}
		}
	}
}

// FuzzFind: whatever stands around a secret, it is found, however it is written.
func FuzzFind(f *testing.F) {
	for _, around := range []string{"", "0", "f", "%", "%4", `\`, `\u00`, "&#", "&#x4", "0x", "canary-", "AQ.canary/+key-1234567890abcdeg", "\xff\x00"} {
		f.Add(around, secret, around)
	}
	forms := everyForm()
	f.Fuzz(func(t *testing.T, before, s, after string) {
		if len(letters(lower(s))) < part || len(s) < 23 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			t.Skip("no secret looks like that")
		}
		for name, encode := range forms {
			if text := before + encode(s) + after; !contains(text, s) {
				t.Errorf("%s: not found in %q", name, text)
			}
			if text := encode(before + s + after); !contains(text, s) {
				t.Errorf("%s: not found within %q", name, text)
			}
		}
	})
}

func BenchmarkFind(b *testing.B) {
	log := ordinary(1 << 20)
	b.SetBytes(int64(len(log)))
	for b.Loop() {
		if contains(log, secret) {
			b.Fatal("found where it isn't")
		}
	}
}

func contains(text, secret string) bool {
	_, found := Find(text, secret)
	return found
}

// ordinary returns about so many bytes of logs and metrics.
func ordinary(size int) string {
	var b bytes.Buffer
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, `{"time":"2026-11-24T22:21:17.%09dZ","level":"INFO","msg":"\"gemini-api-key\" holds a new version","version":%d,"url":"https://127.0.0.1:8200/v1/secret/data/t%08x?x=%%2F"}`+"\n", i*7919, i, i*104729)
		fmt.Fprintf(&b, "keyturn_agent_store_read_seconds_bucket{file=\"canary-%d\",le=\"0.%03d\"} %d\n", i, i%1000, i)
		fmt.Fprintf(&b, "goroutine %d [select]:\nmain.run({0x%x, 0xc000%06x})\n\t/src/agent/main.go:%d +0x%x\n", i, i*65537, i, i, i)
	}
	return b.String()
}
