package keyfile_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/keyturn/keyturn/app/keyfile"
)

func ExampleWatcher_Keys() {
	dir, err := os.MkdirTemp("", "keys-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "gemini-api-key")
	put := func(key string) { // written beside the file, then renamed over it
		if err := os.WriteFile(path+".new", []byte(key), 0o600); err != nil {
			panic(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			panic(err)
		}
	}
	put("the-first-key")

	watcher := keyfile.New(keyfile.Config{Path: path})
	for reading, err := range watcher.Keys(context.Background()) {
		if err != nil {
			fmt.Println("the last good key stays:", err)
			continue
		}
		fmt.Println(reading.Key, len(reading.Key.Reveal()))
		if reading.Key.Reveal() == "the-second-key" {
			break
		}
		put("the-second-key")
	}
	// Output:
	// [redacted] 13
	// [redacted] 14
}
