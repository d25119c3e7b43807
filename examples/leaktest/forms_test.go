package leaktest

import (
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"strings"
)

// encodings are the ways in which a secret gets out, or any part of it.
var encodings = map[string]func(string) string{
	"raw":        func(s string) string { return s },
	"lower case": strings.ToLower,
	"query":      url.QueryEscape,
	"path":       url.PathEscape,
	"JSON":       inJSON,
	"slashes":    func(s string) string { return strings.ReplaceAll(s, "/", `\/`) },
	"HTML":       html.EscapeString,

	"percent":            func(s string) string { return each(s, "%%%02x") },
	"percent, twice":     func(s string) string { return each(s, "%%25%02X") },
	"percent in JSON":    func(s string) string { return each(s, `\u0025%02x`) },
	"JSON's escape":      func(s string) string { return each(s, `\u%04X`) },
	"JSON within JSON":   func(s string) string { return inJSON(each(s, `\u%04x`)) },
	"Go's escape":        func(s string) string { return each(s, `\x%02x`) },
	"octal escape":       func(s string) string { return each(s, `\%03o`) },
	"HTML's entity":      func(s string) string { return each(s, "&#%d;") },
	"HTML's hex entity":  func(s string) string { return each(s, "&#x%X;") },
	"some bytes escaped": strings.NewReplacer("1", `\x31`, "2", "%32", "a", "&#97;", "b", `\u0062`).Replace,

	"%x":              func(s string) string { return fmt.Sprintf("%x", s) },
	"%X":              func(s string) string { return fmt.Sprintf("%X", s) },
	"% x":             func(s string) string { return fmt.Sprintf("% x", s) },
	"% X":             func(s string) string { return fmt.Sprintf("% X", s) },
	"%#x":             func(s string) string { return fmt.Sprintf("%#x", s) },
	"% #x":            func(s string) string { return fmt.Sprintf("% #x", s) },
	"% #X":            func(s string) string { return fmt.Sprintf("% #X", s) },
	"%#v":             func(s string) string { return fmt.Sprintf("%#v", []byte(s)) },
	"hex, colons":     func(s string) string { return each(s, "%02X:") },
	"hex, two by two": func(s string) string { return rows(s, 2, func(p string) string { return fmt.Sprintf("%x ", p) }) },
	"hex, one a line": func(s string) string { return each(s, "a byte(0x%02x) %[1]q,\n") },
	"hex in JSON":     func(s string) string { return inJSON(each(s, "%02x\n")) },

	"%v":                  func(s string) string { return fmt.Sprint([]byte(s)) },
	"%d of an array":      func(s string) string { return fmt.Sprintf("%d", struct{ b any }{[]byte(s)}) },
	"decimal in JSON":     func(s string) string { return strings.ReplaceAll(fmt.Sprint([]byte(s)), " ", ",") },
	"decimal in Go":       func(s string) string { return "[]byte{" + each(s, "%d, ") + "}" },
	"decimal, one a line": func(s string) string { return each(s, "%d\r\n") },
	"decimal, far apart":  func(s string) string { return each(s, "the next byte is %03d and no other\n") },
	"%o":                  func(s string) string { return fmt.Sprintf("%o", []byte(s)) },
	"%O":                  func(s string) string { return fmt.Sprintf("%O", []byte(s)) },

	"base64":          func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
	"base64, at 1":    func(s string) string { return base64.RawStdEncoding.EncodeToString([]byte("k" + s + "k")) },
	"base64, at 2":    func(s string) string { return base64.URLEncoding.EncodeToString([]byte("ke" + s + "key")) },
	"base64 in a URL": func(s string) string { return url.QueryEscape(base64.StdEncoding.EncodeToString([]byte("??" + s))) },
	"base32":          func(s string) string { return base32.StdEncoding.EncodeToString([]byte(s)) },
	"base32, at 1":    func(s string) string { return withoutPadding(base32.StdEncoding, "k"+s+"k") },
	"base32, at 2":    func(s string) string { return base32.HexEncoding.EncodeToString([]byte("ke" + s + "ke")) },
	"base32, at 3":    func(s string) string { return withoutPadding(base32.HexEncoding, "key"+s) },
	"base32, at 4":    func(s string) string { return strings.ToLower(base32.StdEncoding.EncodeToString([]byte("key=" + s))) },
}

// apart are those in which only letters and digits count.
var apart = map[string]func(string) string{
	"%c":           func(s string) string { return fmt.Sprintf("%c", []byte(s)) },
	"quoted runes": func(s string) string { return fmt.Sprintf("%q", []rune(s)) },
	"strings":      func(s string) string { return fmt.Sprintf("%#v", strings.Split(s, "")) },
	"UTF-16":       func(s string) string { return each(s, "%c\x00") },
}

// dumps are those that may cut a secret, after each 16 bytes.
var dumps = map[string]func(string) string{
	"hexdump -C":     func(s string) string { return hex.Dump([]byte(s)) },
	"a dump in JSON": func(s string) string { return inJSON(hex.Dump([]byte(s))) },
	"od -t x1": func(s string) string {
		return rows(s, 16, func(p string) string { return fmt.Sprintf("0000420 % x\n", p) })
	},
	"od -b": func(s string) string {
		return rows(s, 16, func(p string) string { return "0000420 " + each(p, "%03o ") + "\n" })
	},
	"od -x": func(s string) string {
		return rows(s, 16, func(p string) string { return "0000420 " + words(p, 2, "%04x ") + "\n" })
	},
	"words of a stack": func(s string) string {
		return rows(s, 16, func(p string) string { return "c000012340: " + words(p, 8, "0x%016x ") + "\n" })
	},
	"xxd, without text": func(s string) string {
		return rows(s, 16, func(p string) string { return "00000010: " + encodings["hex, two by two"](p) + "\n" })
	},
}

func inJSON(s string) string {
	b, _ := json.Marshal(map[string]string{"value": s}) // a string can always be written
	return string(b)
}

func withoutPadding(e *base32.Encoding, s string) string {
	return e.WithPadding(base32.NoPadding).EncodeToString([]byte(s))
}

// each writes each byte of s as format says.
func each(s, format string) (all string) {
	for _, c := range []byte(s) {
		all += fmt.Sprintf(format, c)
	}
	return all
}

// rows writes s so many bytes at a time.
func rows(s string, size int, write func(piece string) string) (all string) {
	for at := 0; at < len(s); at += size {
		all += write(s[at:min(at+size, len(s))])
	}
	return all
}

// words writes s as a machine shows its memory, in words of so many bytes.
func words(s string, size int, format string) string {
	return rows(s, size, func(piece string) string {
		word := append([]byte(piece), make([]byte, 8-len(piece))...)
		return fmt.Sprintf(format, binary.LittleEndian.Uint64(word))
	})
}
