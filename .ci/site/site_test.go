package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

const repositoryDir = "../.."

// TestSite makes the site of the real documents, and follows its links.
func TestSite(t *testing.T) {
	out := filepath.Join(t.TempDir(), "site")
	if err := run(repositoryDir, out); err != nil {
		t.Fatal(err)
	}
	index := readFile(t, filepath.Join(out, "index.html"))
	for _, want := range []string{
		`<a href="monitoring/index.html">Monitoring</a>`, `<a href="install.html">Install it</a>`, `aria-current="page">Start here`,
		`<li><a href="operating.html">Operating</a>: where`, "<table>",
	} {
		if want == "<table>" {
			index = readFile(t, filepath.Join(out, "trust.html"))
		}
		if !strings.Contains(index, want) {
			t.Errorf("a page has no %s", want)
		}
	}
	monitoring := readFile(t, filepath.Join(out, "monitoring/index.html"))
	for _, want := range []string{`href="../style.css"`, `href="../control.html"`, `href="../monitoring/alerts.yml"`} {
		if !strings.Contains(monitoring, want) {
			t.Errorf("a page in a folder has no %s", want)
		}
	}
	if _, err := os.Stat(filepath.Join(out, "monitoring/alerts.yml")); err != nil {
		t.Error(err)
	}
}

// TestLinks wants links that lead nowhere to be told of, with where they are.
func TestLinks(t *testing.T) {
	tree := fstest.MapFS{
		"README.md":           {Data: []byte("[docs](docs/README.md) [gone](docs/gone.md)\n")},
		"CHANGELOG.md":        {Data: []byte("# Changelog\n")},
		".github/SECURITY.md": {Data: []byte("[a](../docs/a.md#some-words)\n")},
		"docs/README.md":      {Data: []byte("# Start\n\n- [a.md](a.md): a\n\n[up](../CHANGELOG.md) [out](https://example.org/gone)\n")},
		"docs/a.md":           {Data: []byte("# A\n\n## Some `words`\n\n## Some `words`\n\n[here](#some-words-1)\n\nand\n[not here](#others)\n")},
		"docs/b.md":           {Data: []byte("[me](b.md)\n")},
		"docs/reports/c.md":   {Data: []byte("# C\n")},
	}
	s, err := read(tree)
	if err != nil {
		t.Fatal(err)
	}
	want := "README.md:1: docs/gone.md: there is no such file\n" +
		"docs/a.md:9: #others: there is no such heading\n" +
		"docs/b.md: nothing leads to it"
	if err := s.check(); err == nil || err.Error() != want {
		t.Errorf("check() = %v, want\n%s", err, want)
	}
}

// TestNoStart wants the first page.
func TestNoStart(t *testing.T) {
	if _, err := read(fstest.MapFS{"docs": {Mode: fs.ModeDir}, "README.md": {}, "CHANGELOG.md": {}, ".github/SECURITY.md": {}}); err == nil {
		t.Error("documents without docs/README.md are accepted")
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
