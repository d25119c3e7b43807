package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/agent/internal/source"
)

// root returns a driver that may read everything, behind a proxy.
func root(t *testing.T) (*Source, *proxy) {
	v := realVault(t)
	p := startProxy(t, v.Addr)
	t.Setenv("VAULT_ADDR", p.url())
	return open(t, Config{Auth: Token, Token: v.RootToken}), p
}

func TestATTLOfKVVersion1OnlyBringsAReadForward(t *testing.T) {
	v := realVault(t)
	t.Setenv("VAULT_ADDR", v.Addr)
	s := open(t, Config{Auth: Token, Token: v.RootToken, Poll: 45 * time.Second})
	mount := mountKV(t, v, "1")
	for _, c := range []struct {
		field string
		value any
		want  time.Duration
	}{
		{"other", "30s", 0},
		{"ttl", "30s", 30 * time.Second},
		{"lease", "30s", 30 * time.Second},
		{"lease", "1m", 0},
		{"ttl", "8760h", 0},
		{"ttl", "90 days", 0}, // for which Vault falls back to the mount's default
		{"lease", "prod", 0},
		{"ttl", "", 0},
		{"ttl", nil, 0},
		{"ttl", "0", 0},
	} {
		write(t, v, mount+"/gemini", map[string]any{"k": "one", c.field: c.value})
		if got := expect(t, s, mount+"/gemini", "one").RefreshAfter; got != c.want {
			t.Errorf("%s = %v: again after %v, want %v", c.field, c.value, got, c.want)
		}
	}
}

func TestAMountThatWasUpgradedOrMadeAnewHeals(t *testing.T) {
	v := realVault(t)
	s, p := root(t)
	mount := mountKV(t, v, "1")
	write(t, v, mount+"/gemini", map[string]any{"k": "one"})
	expect(t, s, mount+"/gemini", "one")
	write(t, v, "sys/mounts/"+mount+"/tune", map[string]any{"options": map[string]string{"version": "2"}})
	eventually(t, "the upgraded mount is read", func() bool {
		age(s)
		record, err := s.Fetch(t.Context(), mount+"/gemini")
		return err == nil && record.Version.Number == 1
	})
	expect(t, s, mount+"/gemini", "one")

	if err := v.Client().Sys().Unmount(mount); err != nil {
		t.Fatal(err)
	}
	if err := v.Client().Sys().Mount(mount, &api.MountInput{Type: "kv", Options: map[string]string{"version": "1"}}); err != nil {
		t.Fatal(err)
	}
	write(t, v, mount+"/gemini", map[string]any{"k": "two"})
	eventually(t, "the mount that was made anew is read", func() bool {
		age(s)
		_, err := s.Fetch(t.Context(), mount+"/gemini")
		return err == nil
	})
	expect(t, s, mount+"/gemini", "two")
	p.forget()
	expect(t, s, mount+"/gemini", "two")
	if n := p.count("ui/mounts"); n != 0 {
		t.Errorf("a known mount was asked for %d times", n)
	}
}

// age makes what is known of the mounts older than a minute.
func age(s *Source) {
	known := &s.current.Load().mounts
	known.mu.Lock()
	defer known.mu.Unlock()
	for path, m := range known.known {
		m.told = m.told.Add(-2 * patience)
		known.known[path] = m
	}
}

func TestMissingSecretsDoNotAskForTheirMountEachTime(t *testing.T) {
	v := realVault(t)
	s, p := root(t)
	mount := mountKV(t, v, "2")
	for range 20 {
		checkKind(t, s, mount+"/missing", source.NotFound)
	}
	if n := p.count("ui/mounts"); n != 1 {
		t.Errorf("the mount was asked for %d times, want once", n)
	}
}

func TestAnOtherEngineIsReadAsItIsAndHasNoEarlierVersions(t *testing.T) {
	v := realVault(t)
	s, _ := root(t)
	write(t, v, "cubbyhole/"+t.Name(), map[string]any{"k": "one"})
	expect(t, s, "cubbyhole/"+t.Name(), "one")
	_, err := s.FetchVersion(t.Context(), "cubbyhole/"+t.Name(), 1)
	if !isKind(err, source.NotFound) || !strings.Contains(err.Error(), "KV version 2") {
		t.Errorf("%v, want not found", err)
	}
}

func TestAPathWithEveryCharacterThatAUserMayWrite(t *testing.T) {
	v := realVault(t)
	s, _ := root(t)
	for _, version := range []string{"1", "2"} {
		mount := mountKV(t, v, version)
		for i, name := range []string{"a/b/c", "with%20percent", "question?mark", "ä-ü-🔑", "semi;colon&amp", "data/data", "metadata/x"} {
			value := fmt.Sprint(i)
			at, fields := mount+"/"+name, map[string]any{"k": value}
			if version == "2" {
				at, fields = mount+"/data/"+name, map[string]any{"data": fields}
			}
			write(t, v, at, fields)
			expect(t, s, mount+"/"+name, value)
		}
	}
}

func TestWithinFindsTheMountInAPathWithNamespaces(t *testing.T) {
	for _, c := range [][3]string{
		{"secret/gemini", "secret/", "secret/"},
		{"team/kv/gemini", "team/kv/", "team/kv/"},
		{"secret/gemini", "ns1/secret/", "secret/"},
		{"ns1/secret/gemini", "secret/", "ns1/secret/"},
		{"secrets/gemini", "secret/", ""},
		{"secret/gemini", "", ""},
		{"secret/gemini", "other/", ""},
	} {
		if got := within(c[0], c[1]); got != c[2] {
			t.Errorf("within(%q, %q) = %q, want %q", c[0], c[1], got, c[2])
		}
	}
}

// Whatever encoding/json makes of a string, we make of it too, but in bytes that can be cleared.
func FuzzFieldsDecodeAsEncodingJSONDoes(f *testing.F) {
	for _, seed := range []string{`{"k":"v"}`, `{"k":"\ud83d\udd11\u0000\"\\\/\b\f\n\r\t"}`, `{"k":"\ud83d"}`, `{"k":"\ud83dx\udd11"}`,
		`{"k":"\ud83d\u0041"}`, `{"k":1,"l":null,"m":[],"n":{"k":"v"}}`, `null`, `{}`, `{"k":"v","k":7}`, "{\"k\":\"\xff\"}", `{"k":"\u12"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var want map[string]any
		var decoded fields
		wantErr, gotErr := json.Unmarshal(raw, &want), json.Unmarshal(raw, &decoded)
		got := decoded.values()
		if (wantErr == nil) != (gotErr == nil) {
			t.Fatalf("errors %v and %v", wantErr, gotErr)
		}
		if wantErr != nil {
			return
		}
		if len(want) != len(got) || (want == nil) != (decoded == nil) {
			t.Fatalf("%d fields, want %d", len(got), len(want))
		}
		for name, value := range want {
			text, isString := value.(string)
			if got[name].IsZero() == isString {
				t.Fatalf("%q: is it a string? want %t", name, isString)
			}
			if isString && utf8.Valid(raw) && !bytes.Equal(got[name].Reveal(), []byte(text)) {
				t.Fatalf("%q: %q, want %q", name, got[name].Reveal(), text)
			}
		}
	})
}

func BenchmarkFetch(b *testing.B) {
	v := realVault(b)
	mount := mountKV(b, v, "2")
	write(b, v, mount+"/data/gemini", map[string]any{"data": map[string]any{"k": "one"}})
	b.Setenv("VAULT_ADDR", v.Addr)
	s := must[*Source](b)(New(Config{Auth: Token, Token: v.RootToken}, nil))
	defer s.Close(context.Background())
	b.ReportAllocs()
	before := cpu(b)
	for b.Loop() {
		record, err := s.Fetch(context.Background(), mount+"/gemini")
		if err != nil {
			b.Fatal(err)
		}
		record.Clear()
	}
	b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

// cpu is what this process has used, Vault's own work not counted.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkDecode(b *testing.B) {
	body := []byte(`{"request_id":"94a7c6de-2931-6c9f-c4dc-579ae26dfaad","lease_id":"","renewable":false,"lease_duration":0,"data":{"data":{"api_key":"` +
		strings.Repeat("k", 60) + `"},"metadata":{"created_time":"2026-11-24T10:58:31.709064101Z","custom_metadata":null,"deletion_time":"","destroyed":false,"version":1}},"wrap_info":null,"warnings":null,"auth":null,"mount_type":"kv"}`)
	s := &session{}
	b.ReportAllocs()
	for b.Loop() {
		record, err := s.readV2(mount{path: "secret/", kv: 2}, "secret/gemini", body)
		if err != nil {
			b.Fatal(err)
		}
		record.Clear()
	}
}
