package gemini

import (
	"context"
	"errors"
	"iter"
	"net/http"

	sdk "google.golang.org/genai"
)

// genAI is google.golang.org/genai. It has nothing to close.
type genAI struct {
	models *sdk.Models
	model  string
}

// placeholder stands where genai wants a key, so that it doesn't look for one in the environment. The carrier replaces it.
const placeholder = "set-by-transport"

func newGenAI(ctx context.Context, client *http.Client, base, model string) (engine, error) {
	c, err := sdk.NewClient(ctx, &sdk.ClientConfig{ // of its own: genai keeps and changes it
		Backend:     sdk.BackendGeminiAPI,
		APIKey:      placeholder,
		HTTPClient:  client,
		HTTPOptions: sdk.HTTPOptions{BaseURL: base, APIVersion: "v1beta"}, // no RetryOptions: it retries nothing
	})
	if err != nil { // its text prints the whole configuration
		return nil, errors.New("gemini: google.golang.org/genai can't be set up; check the base URL")
	}
	return &genAI{c.Models, model}, nil
}

// config is made for each call, since genai fills in defaults.
func (g *genAI) config() *sdk.GenerateContentConfig {
	return &sdk.GenerateContentConfig{AutomaticContinuation: new(false)} // each continuation would be billed, and hide a cut
}

func (g *genAI) generate(ctx context.Context, prompt string) (piece, error) {
	return genAIPiece(g.models.GenerateContent(ctx, g.model, sdk.Text(prompt), g.config()))
}

func (g *genAI) stream(ctx context.Context, prompt string) iter.Seq2[piece, error] {
	return func(yield func(piece, error) bool) {
		for response, err := range g.models.GenerateContentStream(ctx, g.model, sdk.Text(prompt), g.config()) {
			p, err := genAIPiece(response, err)
			if !yield(p, err) || err != nil {
				return
			}
		}
	}
}

// notBlocked is what the API calls the reason that the SDK calls BLOCKED_REASON_UNSPECIFIED.
const notBlocked sdk.BlockedReason = "BLOCK_REASON_UNSPECIFIED"

func genAIPiece(response *sdk.GenerateContentResponse, err error) (piece, error) {
	if err != nil {
		return piece{}, err
	}
	var p piece
	if f := response.PromptFeedback; f != nil && f.BlockReason != sdk.BlockedReasonUnspecified && f.BlockReason != notBlocked {
		p.blocked = string(f.BlockReason)
	}
	if len(response.Candidates) == 0 {
		return p, nil
	}
	first := response.Candidates[0]
	if first.FinishReason != sdk.FinishReasonUnspecified {
		p.finish = string(first.FinishReason)
	}
	if first.Content == nil {
		return p, nil
	}
	for _, part := range first.Content.Parts {
		if !part.Thought {
			p.text += part.Text
		}
	}
	return p, nil
}
