package leaktest

import (
	"html"
	"strconv"
	"strings"
)

// bigEndian leaves the digits of what in text is a number in hex, two for each byte.
func bigEndian(text string) string { return hexWords(text, false) }

// littleEndian is bigEndian with the last byte of each number first.
func littleEndian(text string) string { return hexWords(text, true) }

func hexWords(text string, reversed bool) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		from := i
		for i < len(text) && isLetter(text[i]) {
			i++
		}
		word := hexDigits(text[from:i])
		if !reversed {
			b.WriteString(word)
			continue
		}
		for at := len(word) - 2; at >= 0; at -= 2 {
			b.WriteString(word[at : at+2])
		}
	}
	return b.String()
}

// hexDigits returns the digits of a word that is a number in hex, an even number of them, or else nothing. One digit alone
// is a number only if it is marked as one.
func hexDigits(word string) string {
	digits := strings.TrimPrefix(strings.TrimPrefix(word, "0x"), "x")
	for i := range len(digits) {
		if !isHex(digits[i]) {
			return ""
		}
	}
	if len(digits)%2 == 0 {
		return digits
	}
	if len(word) == 1 {
		return ""
	}
	return "0" + digits
}

// decimal leaves the bytes that the decimal numbers in text stand for.
func decimal(text string) string { return numbers(text, 10) }

// octal is decimal for octal numbers.
func octal(text string) string { return numbers(text, 8) }

func numbers(text string, base int) string {
	var b []byte
	for i := 0; i < len(text); i++ {
		from, n := i, 0
		for i < len(text) && isDigit(text[i]) {
			n = min(n*base+int(text[i]-'0'), 256)
			i++
		}
		marks := text[from:i] == "0" && i < len(text) && isLetter(text[i]) // as 0o101 begins
		if i > from && n < 256 && !marks {
			b = append(b, byte(n))
		}
	}
	return lower(string(b))
}

// unescape takes one layer of escapes away.
func unescape(text string) string {
	var b strings.Builder
	for {
		at := strings.IndexAny(text, `%\`)
		if at < 0 {
			b.WriteString(text)
			return html.UnescapeString(b.String())
		}
		b.WriteString(text[:at])
		plain, length := escape(text[at:])
		if length == 0 {
			plain, length = text[at:at+1], 1
		}
		b.WriteString(plain)
		text = text[at+length:]
	}
}

// escape returns what the escape at the start of text stands for, and its length, which is 0 if there is none.
func escape(text string) (plain string, length int) {
	if text[0] == '%' {
		return number(text, 1, 16, 2)
	}
	if len(text) < 2 {
		return "", 0
	}
	switch text[1] {
	case 'x':
		return number(text, 2, 16, 2)
	case 'u':
		return number(text, 2, 16, 4)
	case '0', '1', '2', '3':
		return number(text, 1, 8, 3)
	case '\\', '/', '"', '\'':
		return text[1:2], 2
	case 'n', 'r', 't', 'b', 'f', 'v', 'a':
		return " ", 2
	}
	return "", 0
}

// number is escape for the number of so many digits from at on: a letter if there are four, or else a byte.
func number(text string, at, base, digits int) (plain string, length int) {
	if len(text) < at+digits {
		return "", 0
	}
	n, err := strconv.ParseUint(text[at:at+digits], base, 16)
	if err != nil {
		return "", 0
	}
	if digits == 4 {
		return string(rune(n)), at + digits
	}
	return string([]byte{byte(n)}), at + digits
}
