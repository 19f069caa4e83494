package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// leaves returns the commands that do something.
func leaves(c *cobra.Command) (all []*cobra.Command) {
	if !c.HasSubCommands() {
		return []*cobra.Command{c}
	}
	for _, sub := range c.Commands() {
		all = append(all, leaves(sub)...)
	}
	return all
}

// TestHelp wants every command to be explained in the same way, with an example
// that begins with it, and to be in some script of the tests, here or with a real
// daemon.
func TestHelp(t *testing.T) {
	scripts := ""
	for _, pattern := range []string{"testdata/*.txt", "../nar-p2pd/testdata/*.txt"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("no %s: %v", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			scripts += string(text)
		}
	}
	// They come before the command.
	scripts = strings.NewReplacer("--json ", "").Replace(scripts)
	for _, c := range leaves(newRoot()) {
		path := c.CommandPath()
		if c.Short == "" || strings.ToLower(c.Short[:1]) != c.Short[:1] || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: %q is not like the others", path, c.Short)
		}
		if !strings.Contains(c.Example, path) && !c.Hidden {
			t.Errorf("%s has no example", path)
		}
		if !strings.Contains(scripts, path) {
			t.Errorf("%s is in no script", path)
		}
	}
}
