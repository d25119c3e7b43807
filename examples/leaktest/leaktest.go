// Package leaktest searches what a program gave out for a secret, however it was written down.
package leaktest

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
)

// Find returns the form in which secret stands in text; found is false if it stands there in none. It looks for the secret
// itself and for it in base64 (at any of three offsets, both alphabets), hex, decimal, percent and JSON's \u encoding, URLs,
// whatever the case.
func Find(text, secret string) (form string, found bool) {
	text = strings.ToLower(text)
	for _, form := range forms(secret) {
		if strings.Contains(text, strings.ToLower(form)) {
			return form, true
		}
	}
	return "", false
}

// forms returns how secret may be written.
func forms(secret string) []string {
	percent, escapes := "", ""
	for _, c := range []byte(secret) {
		percent += fmt.Sprintf("%%%02x", c)
		escapes += fmt.Sprintf("\\u%04x", c)
	}
	decimal := strings.Trim(fmt.Sprint([]byte(secret)), "[]")
	commas := strings.ReplaceAll(decimal, " ", ",")
	all := []string{secret, url.QueryEscape(secret), url.PathEscape(secret), percent, escapes, hex.EncodeToString([]byte(secret)), decimal, commas, strings.ReplaceAll(commas, ",", ", ")}
	for at := range 3 { // base64 depends on what stands before; what is left out here depends on the neighbours
		padded := strings.Repeat("-", at) + secret
		padded = padded[:len(padded)/3*3]
		for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			all = append(all, encoding.EncodeToString([]byte(padded))[(at+2)/3*4:])
		}
	}
	return all
}
