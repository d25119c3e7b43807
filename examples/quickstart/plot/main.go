// Command plot draws the report of a drill, which it reads from its standard input as JSON, to a file:
//
//	go run ./examples/quickstart drill -json drill.json
//	go run -C examples/quickstart/plot . /tmp/drill.svg < drill.json
//
// It is a module of its own, so that the product's go.mod needs no plotting library. It knows of a report what it draws, and
// shares no code with the program that writes it: the JSON is what is between them.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	if err := runMain(os.Args[1:], os.Stdin); err != nil {
		fmt.Fprintf(os.Stderr, "plot: %v\n", err)
		os.Exit(1)
	}
}

func runMain(args []string, in io.Reader) (err error) {
	if len(args) != 1 {
		return errors.New("name the file to draw to, .svg or .png, and hand the report to standard input")
	}
	r, err := read(in)
	if err != nil {
		return err
	}
	picture, err := draw(r, strings.TrimPrefix(filepath.Ext(args[0]), "."))
	if err != nil {
		return err
	}
	return os.WriteFile(args[0], picture, 0o644)
}
