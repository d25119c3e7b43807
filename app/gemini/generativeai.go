package gemini

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"strings"

	sdk "github.com/google/generative-ai-go/genai"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
	"google.golang.org/api/option/internaloption"
	"google.golang.org/api/transport/grpc"
)

// generativeAI is github.com/google/generative-ai-go. Its client is not closed: that would only take its http.Client
// away, without a lock, from calls that still use it.
type generativeAI struct{ model *sdk.GenerativeModel }

// noConnections is the pool of the gRPC client for cached content, which nothing here calls.
type noConnections struct{ grpc.ConnPool }

func newGenerativeAI(ctx context.Context, client *http.Client, base, model string) (engine, error) {
	c, err := sdk.NewClient(ctx,
		option.WithEndpoint(base), // explicit, so that no environment variable has a say
		option.WithHTTPClient(client),
		grpc.WithConnPool(noConnections{}),
		internaloption.SkipDialSettingsValidation()) // which finds that the last two contradict each other
	if err != nil {
		return nil, errors.New("gemini: generative-ai-go can't be set up; check the base URL")
	}
	return &generativeAI{c.GenerativeModel(model)}, nil
}

func (g *generativeAI) generate(ctx context.Context, prompt string) (piece, error) {
	return generativeAIPiece(g.model.GenerateContent(ctx, sdk.Text(prompt)))
}

func (g *generativeAI) stream(ctx context.Context, prompt string) iter.Seq2[piece, error] {
	return func(yield func(piece, error) bool) {
		pieces := g.model.GenerateContentStream(ctx, sdk.Text(prompt))
		for {
			response, err := pieces.Next()
			if errors.Is(err, iterator.Done) {
				return
			}
			p, err := generativeAIPiece(response, err)
			if !yield(p, err) || err != nil {
				return
			}
		}
	}
}

func generativeAIPiece(response *sdk.GenerateContentResponse, err error) (piece, error) {
	if blocked, ok := errors.AsType[*sdk.BlockedError](err); ok {
		if blocked.PromptFeedback != nil {
			return piece{blocked: blockWord(blocked.PromptFeedback.BlockReason)}, nil
		}
		return piece{finish: finishWord(blocked.Candidate.FinishReason)}, nil
	}
	if err != nil || len(response.Candidates) == 0 {
		return piece{}, err
	}
	first := response.Candidates[0]
	p := piece{finish: finishWord(first.FinishReason)}
	if first.Content == nil {
		return p, nil
	}
	var text strings.Builder
	for _, part := range first.Content.Parts {
		if t, ok := part.(sdk.Text); ok {
			text.WriteString(string(t))
		}
	}
	p.text = text.String()
	return p, nil
}

// finishWord names a finishReason, which this SDK has as a number and knows only up to OTHER.
func finishWord(r sdk.FinishReason) string {
	if r == sdk.FinishReasonUnspecified {
		return ""
	}
	return word(int(r), "", "STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "OTHER", "LANGUAGE", "BLOCKLIST",
		"PROHIBITED_CONTENT", "SPII", "MALFORMED_FUNCTION_CALL")
}

func blockWord(r sdk.BlockReason) string {
	return word(int(r), "BLOCK_REASON_UNSPECIFIED", "SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT")
}

func word(i int, words ...string) string {
	if i < 0 || i >= len(words) {
		return "OTHER"
	}
	return words[i]
}
