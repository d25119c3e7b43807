package confine

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// OfFile returns the directories to read so that file can be read, also when it is replaced: its own and, if it is a link
// to elsewhere, the one that it leads to. Links in their paths are resolved. They may be missing.
func OfFile(file string) []string {
	return distinct(filepath.Dir(file), filepath.Dir(target(file)))
}

// OfDirectory returns the directories to read so that every file in dir can be read. It takes a file for OfFile's.
func OfDirectory(dir string) []string {
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return OfFile(dir)
	}
	dirs, seen := []string{dir}, map[string]bool{} // hundreds of links lead to one place
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		link, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(dir, link)
		}
		place := filepath.Dir(link)
		if place == dir { // another entry, which stands for itself
			continue
		}
		info, err := os.Lstat(link)
		if err != nil || info.IsDir() {
			continue
		}
		if isFile := info.Mode().IsRegular(); !isFile || !seen[place] {
			seen[place] = seen[place] || isFile
			dirs = append(dirs, filepath.Dir(target(link)))
		}
	}
	return distinct(dirs...)
}

// target returns what file leads to, which may not be there yet; file itself if it is no link.
func target(file string) string {
	if resolved, err := filepath.EvalSymlinks(file); err == nil {
		return resolved
	}
	link, err := os.Readlink(file)
	switch {
	case err != nil:
		return file
	case filepath.IsAbs(link):
		return link
	}
	return filepath.Join(resolve(filepath.Dir(file)), link)
}

// resolve follows the links in a path as far as it exists.
func resolve(path string) string {
	path, _ = filepath.Abs(path) // which fails only without a working directory
	if resolved, err := filepath.EvalSymlinks(path); err == nil || path == "/" {
		return resolved
	}
	return filepath.Join(resolve(filepath.Dir(path)), filepath.Base(path))
}

// distinct resolves dirs and leaves out those that lie in an earlier one.
func distinct(dirs ...string) []string {
	var all []string
	for _, dir := range dirs {
		if dir = resolve(dir); !Within(dir, all...) {
			all = append(all, dir)
		}
	}
	return all
}

// Within reports whether path is one of dirs or lies below one.
func Within(path string, dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool {
		return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
	})
}

// Homes are directories of somebody's own, where much more lies than one file.
type Homes []string

// FindHomes returns home, which may be empty, and what the file passwd, in the format of passwd(5), says of root and of
// people. A service's home is its own business.
func FindHomes(home, passwd string) Homes {
	homes := Homes{home, "/root"}
	content, _ := os.ReadFile(passwd)
	for line := range strings.Lines(string(content)) {
		fields := strings.Split(line, ":")
		if len(fields) != 7 {
			continue
		}
		// People have the ids from 1000 on, and what is above 60000 is nobody or was made up for a container.
		if uid, err := strconv.Atoi(fields[2]); err == nil && (uid == 0 || uid >= 1000 && uid < 60000) {
			homes = append(homes, fields[5])
		}
	}
	for i, h := range homes {
		if filepath.IsAbs(h) {
			homes[i] = resolve(h)
		}
	}
	return homes
}

// TooWide reports whether reading in dir would open the root, a home, or what is above one.
func (h Homes) TooWide(dir string) bool {
	if dir == "/" || dir == "/home" || filepath.Dir(dir) == "/home" {
		return true
	}
	return slices.ContainsFunc(h, func(home string) bool { return filepath.IsAbs(home) && home != "/" && Within(home, dir) })
}
