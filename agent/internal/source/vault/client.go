package vault

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/agent/internal/source"
)

const (
	// requestTimeout bounds one request, unless VAULT_CLIENT_TIMEOUT says otherwise. vault/api's own default of a minute
	// would make a hung Vault look like a slow one.
	requestTimeout = 10 * time.Second
	// maxBody bounds an answer. Vault's own limit for what it stores is 1 MiB with its integrated storage.
	maxBody = 4 << 20
	// idle is how many connections stay open for concurrent reads.
	idle = 32
)

// client is one vault/api client. It is safe for concurrent use.
type client struct {
	api       *api.Client
	transport *http.Transport
}

// newClient reads the VAULT_* variables and the certificate files that they name.
func newClient() (*client, error) {
	config := api.DefaultConfig()
	if config.Error != nil {
		return nil, config.Error
	}
	if os.Getenv(api.EnvVaultClientTimeout) == "" {
		config.Timeout = requestTimeout
	}
	transport := config.HttpClient.Transport.(*http.Transport)
	transport.MaxIdleConnsPerHost = idle
	c, err := api.NewClient(config)
	if err != nil {
		return nil, err
	}
	c.SetMaxRetries(0)
	c.ClearToken() // what VAULT_TOKEN holds is for the method token alone
	return &client{c, transport}, nil
}

func (c *client) close() { c.transport.CloseIdleConnections() }

// call makes one request and decodes its answer into out, unless that is nil. what says what it is for, in errors.
func (c *client) call(ctx context.Context, what, method, path string, query map[string]string, body, out any) error {
	request := c.api.NewRequest(method, "/v1/"+path)
	for k, v := range query {
		request.Params.Set(k, v)
	}
	if body != nil {
		if err := request.SetJSONBody(body); err != nil {
			return &source.Error{Kind: source.Unavailable, Reason: what + ": the request can't be made"}
		}
	}
	//lint:ignore SA1019 vault/api's replacements decode through maps of strings, which leave secrets in memory
	response, err := c.api.RawRequestWithContext(ctx, request)
	if response != nil {
		defer response.Body.Close()
	}
	if err != nil {
		return failure(ctx, what, response, err)
	}
	if out == nil {
		return nil
	}
	return decode(what, response.Body, out)
}

// decode reads one JSON document and clears the buffer that it was in.
func decode(what string, body io.Reader, out any) error {
	raw, err := io.ReadAll(io.LimitReader(body, maxBody+1))
	defer clear(raw)
	switch {
	case err != nil:
		return &source.Error{Kind: source.Unavailable, Reason: what + ": the answer broke off"}
	case len(raw) > maxBody:
		return &source.Error{Kind: source.Unavailable, Reason: what + ": the answer is larger than 4 MiB, so it is not Vault's: check VAULT_ADDR"}
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return &source.Error{Kind: source.Unavailable, Reason: what + ": the answer is not Vault's: check VAULT_ADDR and what stands before it"}
	}
	return nil
}

func denied(err error) bool {
	e, ok := errors.AsType[*source.Error](err)
	return ok && e.Kind == source.Denied
}
