// Package gemini talks to the Gemini API with one immutable [Client] per key.
//
// Make one [Backend] for a program and one client from it for each key:
//
//	backend, err := gemini.New(ctx, gemini.Config{})
//	text, err := backend.Client(key).Generate(ctx, "Hello")
//
// A client costs nothing to make and nothing to drop. All clients of a backend share one SDK client and one connection
// pool, so a new key needs no new TLS handshake. The key reaches the wire through the request's context: the backend's
// transport puts it into the x-goog-api-key header, and only for the configured scheme and host.
//
// # Decisions
//
// The transport, not the SDK, judges every answer that is not a success. The SDKs disagree here: generative-ai-go retries
// a 503 for up to ten minutes and swallows an error inside a stream; genai hides Retry-After. Both now see a transport
// error instead, retry nothing, and never hold a body that might quote the key.
//
// generative-ai-go also builds a gRPC client, for cached content. It is given a connection pool without connections, so
// nothing dials. (Rejected: letting it dial, which leaks a connection a client that reconnects for ever.)
//
// Probe is a plain GET through the same transport: generative-ai-go drops the caller's context when it lists models, so
// neither the key nor a cancellation would arrive.
//
// generative-ai-go throws away a whole answer, or piece of a stream, if one of its parts has no field that it knows, such
// as a thoughtSignature alone. Then Generate fails with [FaultUnavailable] and a stream with [FaultTruncated]; genai reads
// on. The API is not known to send such a part to a prompt of text. (Rejected: taking them out of each body on its way,
// which parses every answer twice.)
//
// A call is made once. Whether to repeat it, and on which key, is for the caller, who sees the [Fault].
package gemini

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/keyturn/keyturn/app/keyfile"
)

// DefaultModel is used when [Config] names no model: the newest stable Flash model that
// https://ai.google.dev/gemini-api/docs/models lists (read in November 2026).
const DefaultModel = "gemini-3.8-flash"

// DefaultBaseURL is Google's endpoint of the Gemini API.
const DefaultBaseURL = "https://generativelanguage.googleapis.com"

// Client asks the Gemini API with one key. It is immutable and safe for concurrent use.
//
// Every error is an *[Error], except that a call whose context has ended returns an error that wraps ctx.Err(), and a
// call after [Backend.Close] returns [ErrClosed]. No error contains the key.
type Client interface {
	// Generate returns the text of the first candidate. It blocks until the whole answer is there; without a deadline,
	// generative-ai-go gives it ten minutes, and then it is FaultUnavailable.
	Generate(ctx context.Context, prompt string) (string, error)

	// Stream yields the text of the first candidate piece by piece, as it comes. It ends without an error only after a
	// piece with a finishReason; otherwise its last element is an error. What may come after that piece is waited for one
	// second at most. Breaking out of the loop cancels the request.
	// The sequence may be ranged over again; each time is a request of its own.
	Stream(ctx context.Context, prompt string) iter.Seq2[string, error]

	// Probe asks for one entry of the list of models, the cheapest call that needs a key. It returns nil if the key was
	// accepted.
	Probe(ctx context.Context) error
}

// SDK names the library that makes the calls.
type SDK string

const (
	SDKGenerativeAI SDK = "generative-ai-go" // github.com/google/generative-ai-go, the default
	SDKGenAI        SDK = "genai"            // google.golang.org/genai
)

// SDKs lists every SDK that [Config] accepts, the default first.
func SDKs() []SDK { return []SDK{SDKGenerativeAI, SDKGenAI} }

// Config describes a backend. The zero Config means Google's endpoint, [DefaultModel] and generative-ai-go.
type Config struct {
	SDK       SDK
	Model     string // without "models/"
	BaseURL   string // without the version; see [CheckEndpoint]
	AllowHTTP bool   // plain http to a host that is not loopback: the key crosses the network in clear text
}

// ErrClosed is returned by calls that start after [Backend.Close].
var ErrClosed = errors.New("gemini: the backend is closed")

// Backend is what all keys share: a connection pool and an SDK client. It holds no key. Safe for concurrent use.
type Backend struct {
	engine engine
	pool   *http.Transport
	http   *http.Client
	base   string
	closed atomic.Bool
}

// engine is one SDK. It makes requests through the http.Client that it was given, with the context that it is given,
// and judges nothing.
type engine interface {
	generate(ctx context.Context, prompt string) (piece, error)
	stream(ctx context.Context, prompt string) iter.Seq2[piece, error]
}

// piece is an answer or a part of one.
type piece struct {
	text    string // of the first candidate
	finish  string // its finishReason, empty while it goes on
	blocked string // the prompt's blockReason, if it was refused
}

// New makes a backend. It opens no connection, and no environment variable has a say except, for an https endpoint, the
// usual proxy settings. (genai looks at its own all the same: it writes a line to the standard logger if both
// GOOGLE_API_KEY and GEMINI_API_KEY are set, and uses neither.) A bad endpoint, model or SDK is an error here. ctx governs
// only the setting up.
func New(ctx context.Context, c Config) (*Backend, error) {
	base, err := parseEndpoint(cmp.Or(c.BaseURL, DefaultBaseURL), c.AllowHTTP)
	if err != nil {
		return nil, err
	}
	model := cmp.Or(c.Model, DefaultModel)
	if err := CheckModel(model); err != nil {
		return nil, err
	}
	b := &Backend{pool: newPool(), base: strings.TrimSuffix(base.String(), "/")}
	b.http = &http.Client{Transport: &carrier{next: b.pool, closed: &b.closed, scheme: base.Scheme, host: hostPort(base)}}
	switch cmp.Or(c.SDK, SDKGenerativeAI) {
	case SDKGenerativeAI:
		b.engine, err = newGenerativeAI(ctx, b.http, b.base, model)
	case SDKGenAI:
		b.engine, err = newGenAI(ctx, b.http, b.base, model)
	default:
		err = fmt.Errorf("gemini: unknown SDK; use %q or %q", SDKGenerativeAI, SDKGenAI)
	}
	if err != nil {
		return nil, err
	}
	b.engine = guarded{b.engine}
	return b, nil
}

// CheckModel reports why name can't be a model's, or nil. The error doesn't quote it, since it may be a secret in the wrong
// place.
func CheckModel(name string) error {
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" {
		return errors.New("gemini: the model's name may only have letters, digits, '.', '_' and '-'; " +
			"leave out a leading \"models/\"")
	}
	return nil
}

// Client returns the client that uses key. It never fails and costs one small allocation; it needs no closing.
// The calls of a client with the zero key fail with [FaultConfig], without a request.
func (b *Backend) Client(key keyfile.Key) Client { return &client{backend: b, key: key} }

// Close closes the idle connections. Call it after the last call has returned; calls that start later get [ErrClosed].
// It may be called more than once.
func (b *Backend) Close() error {
	b.closed.Store(true)
	b.pool.CloseIdleConnections()
	return nil
}
