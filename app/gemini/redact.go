package gemini

import (
	"net/url"
	"regexp"
	"strings"
	"unicode"
)

// maxMessage bounds Google's words in an error, in bytes.
const maxMessage = 512

const redacted = "[redacted]"

// keyLike matches what looks like a Gemini key, or is announced as one: Google's errors may quote another key than the
// one that was sent, for instance that of the project which a key belongs to.
var keyLike = regexp.MustCompile(`\b(AIza[0-9A-Za-z_-]{10,}|[AI]Q\.[0-9A-Za-z_.-]{10,})|(api_key:|key=)[^\s'"&]+`)

// redact makes s fit for a log: one line, valid, bounded, and without key. The line is made first, so that nothing
// which is taken out afterwards can put a key together.
func redact(s, key string) string {
	s = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "\uFFFD"), func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r)
	}), " ")
	if key != "" {
		s = strings.NewReplacer(key, redacted, url.QueryEscape(key), redacted, url.PathEscape(key), redacted).Replace(s)
	}
	s = keyLike.ReplaceAllString(s, "${2}"+redacted)
	if len(s) > maxMessage {
		s = strings.ToValidUTF8(s[:maxMessage], "") + "…"
	}
	return s
}

// redactReason lets only what looks like one of Google's constants pass, unless it holds the key.
func redactReason(reason, key string) string {
	if len(reason) > 64 || strings.Trim(reason, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" ||
		key != "" && strings.Contains(reason, key) {
		return ""
	}
	return reason
}
