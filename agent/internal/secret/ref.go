package secret

import (
	"errors"
	"fmt"
	"strings"
)

// Ref names one field of one secret in a store. It says where a secret is and never holds one.
type Ref struct {
	// Path is the mount and the path below it, as in "secret/gemini", without slashes at its ends.
	Path string
	// Field is the key within the secret at Path.
	Field string
}

// ParseRef reads MOUNT/PATH#FIELD, as in "secret/gemini#api_key". Its errors say what is missing or wrong.
func ParseRef(s string) (Ref, error) {
	path, field, found := strings.Cut(s, "#")
	switch {
	case !found || field == "":
		return Ref{}, errors.New("the field is missing: write MOUNT/PATH#FIELD")
	case strings.Contains(field, "#"):
		return Ref{}, errors.New("more than one # in it: write MOUNT/PATH#FIELD")
	case !printable(path) || !printable(field):
		return Ref{}, errors.New("a space or control character in it: write MOUNT/PATH#FIELD")
	}
	path = strings.Trim(path, "/")
	segments := strings.Split(path, "/")
	if len(segments) < 2 {
		return Ref{}, errors.New("the path is missing: write MOUNT/PATH#FIELD")
	}
	for _, segment := range segments {
		if segment == "" || segment == "." || segment == ".." {
			return Ref{}, fmt.Errorf("the path has a segment %q: write it without", segment)
		}
	}
	return Ref{Path: path, Field: field}, nil
}

// String returns the reference as ParseRef reads it.
func (r Ref) String() string { return r.Path + "#" + r.Field }

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == 0x7f })
}
