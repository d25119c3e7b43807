// Package keyfile turns a file into a stream of valid keys.
package keyfile
