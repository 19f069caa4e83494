// Command site makes a small site of the Markdown in docs/: a page for each file,
// with the list of docs/README.md beside it. A link that leads nowhere, to a file or
// to a heading, is an error, also in the documents that are not part of the site; so
// is a page that nothing leads to.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
)

func main() {
	source := flag.String("source", ".", "the repository's folder")
	out := flag.String("out", "", "where the site goes; what is there is removed. Without it links are checked, and nothing is written")
	flag.Parse()
	if err := run(*source, *out); err != nil {
		fmt.Fprintln(os.Stderr, "site:", err)
		os.Exit(1)
	}
}

func run(source, out string) error {
	s, err := read(os.DirFS(source))
	if err != nil {
		return err
	}
	if err := s.check(); err != nil || out == "" {
		return err
	}
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	root, err := openRoot(out)
	if err != nil {
		return err
	}
	return errors.Join(s.write(root), root.Close())
}

// openRoot makes a folder from which nothing can be written elsewhere.
func openRoot(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return os.OpenRoot(dir)
}
