// Package leaktest searches what a program gave out for a secret, or for a part of it, however it was written down.
package leaktest

import (
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"strings"
)

// part is how many bytes of a secret in a row are as good as all of it.
const part = 12

// layers is how often a text may have been escaped, as a URL within a URL's query is twice.
const layers = 4

// Find returns the form in which secret stands in text, and how; found is false if it stands there in none. The case of
// letters doesn't matter. It looks for
//   - the secret as it is, and its letters and digits with anything but those between them;
//   - hex: in a row, or in groups of any size with any words between them, as %x, % x and %#v print bytes, a hex dump or a
//     fingerprint; groups may be the little-endian words of a dump of memory;
//   - decimal and octal numbers, with anything but digits between them;
//   - base64 and base32 (either alphabet of both), at any offset in what was encoded;
//   - all of these within what is escaped, up to four times: %41, \x41, \u0041, \101, \/, &#65;, &#x41; and &amp;.
//
// Any 12 bytes of the secret in a row count as the secret, so what it has in common with others, or with what may be seen, a
// prefix for instance, must be shorter than that. A secret that is shorter itself is sought as a whole. One of fewer than 23
// bytes isn't found in a dump if a row's end cuts it into parts that are shorter.
//
// It takes some 40 ms for 1 MiB of a log, and 10 µs for a line.
func Find(text, secret string) (form string, found bool) {
	if secret == "" {
		return "nothing, which stands everywhere", true
	}
	forms := formsOf(lower(secret), secret)
	text = lower(text)
	for range layers {
		for _, f := range forms {
			if piece, found := stands(f.read(text), f.written, f.least); found {
				return f.name + " " + piece, true
			}
		}
		plain := lower(unescape(text))
		if plain == text {
			break
		}
		text = plain
	}
	return "", false
}

// form is a way to write a secret down.
type form struct {
	name    string
	read    func(text string) string // leaves of a text in lower case what the secret is sought in
	written []string                 // the whole secret, in lower case
	least   int                      // how many bytes of it are found in any part
}

// formsOf returns the forms of a secret.
func formsOf(plain, secret string) []form {
	n := min(part, len(secret))
	digits := []string{hex.EncodeToString([]byte(secret))}
	var in64, in32 []string
	for at := range 3 {
		for _, e := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			in64 = append(in64, inside(e.EncodeToString, 6, at, secret))
		}
	}
	for at := range 5 {
		for _, e := range []*base32.Encoding{base32.StdEncoding, base32.HexEncoding} {
			in32 = append(in32, inside(e.EncodeToString, 5, at, secret))
		}
	}
	return []form{
		{"as it is:", all, []string{plain}, n},
		{"one by one:", letters, []string{letters(plain)}, n},
		{"hex", all, digits, 2 * n},
		{"hex in groups:", bigEndian, digits, 2 * n},
		{"hex in words:", littleEndian, digits, 2 * n},
		{"decimal:", decimal, []string{plain}, n},
		{"octal:", octal, []string{plain}, n},
		{"base64", all, in64, (8*n - 4) / 6},
		{"base32", all, in32, (8*n - 4) / 5},
	}
}

// inside returns the letters, of so many bits each, that secret alone decides if it is encoded behind at other bytes.
func inside(encode func([]byte) string, bits, at int, secret string) string {
	encoded := encode(append(make([]byte, at), secret...))
	return lower(encoded[(8*at+bits-1)/bits : 8*(at+len(secret))/bits])
}

// stands returns what of text is a part of one of patterns, at least least bytes long.
//
// It looks at short pieces of text only, so far apart that no such part fits in between without holding one.
func stands(text string, patterns []string, least int) (piece string, found bool) {
	size := min(4, least)
	if size == 0 {
		return "", false
	}
	var known [1 << 14]bool // by hash: a map of them takes longer to make than most texts to search
	for _, p := range patterns {
		for at := 0; at+size <= len(p); at++ {
			known[hash(p[at:at+size])%len(known)] = true
		}
	}
	for i := 0; i+size <= len(text); i += least - size + 1 {
		if !known[hash(text[i:i+size])%len(known)] {
			continue
		}
		for _, p := range patterns {
			for at := range len(p) - size + 1 {
				if p[at] != text[i] {
					continue
				}
				before, after := common(text, i, p, at)
				if before+after >= least {
					return text[i-before : i+after], true
				}
			}
		}
	}
	return "", false
}

func hash(piece string) (h int) {
	for i := range len(piece) {
		h = h<<4 ^ h>>7 ^ int(piece[i])
	}
	return h
}

// common returns for how many bytes before i and from i on text is what p is around at.
func common(text string, i int, p string, at int) (before, after int) {
	for before < i && before < at && text[i-before-1] == p[at-before-1] {
		before++
	}
	for i+after < len(text) && at+after < len(p) && text[i+after] == p[at+after] {
		after++
	}
	return before, after
}

func all(text string) string { return text }

// lower is strings.ToLower for ASCII alone: all other bytes stay what they are.
func lower(text string) string {
	b := []byte(text)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// letters leaves the letters and digits.
func letters(text string) string {
	var b strings.Builder
	b.Grow(len(text))
	for i := range len(text) {
		if isLetter(text[i]) {
			b.WriteByte(text[i])
		}
	}
	return b.String()
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || isDigit(c) }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isHex(c byte) bool { return 'a' <= c && c <= 'f' || isDigit(c) }
