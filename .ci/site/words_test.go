package main

import (
	goast "go/ast"
	goparser "go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/yuin/goldmark/ast"
)

// quotations are what docs/troubleshooting.md says that the programs print: headings
// in backquotes, and what stands in brackets or in the first column of a table.
var quotations = regexp.MustCompile("(?m)^### `(.*)`$|\\(`([^`]* [^`]*)`\\)|^\\| `([^`]* [^`]*)` \\|")

// commands are calls of p2pctl with a subcommand.
var commands = regexp.MustCompile(`\bp2pctl ([a-z][a-z-]*)`)

// verbs are what stands in a format for something that differs.
var verbs = regexp.MustCompile(`%[-+# 0-9.*]*[a-zA-Z]`)

// TestTroubleshooting wants the symptoms to be in the words of the programs: whoever
// searches for a message is to find it.
func TestTroubleshooting(t *testing.T) {
	said := messages(t)
	text := readFile(t, filepath.Join(repositoryDir, folder, "troubleshooting.md"))
	found := 0
	for _, match := range quotations.FindAllStringSubmatch(text, -1) {
		quoted := strings.ReplaceAll(match[1]+match[2]+match[3], "\n", " ")
		if strings.HasPrefix(quoted, "nix-store ") {
			continue // a command
		}
		found++
		if !strings.Contains(said, quoted) {
			t.Errorf("no program prints %q", quoted)
		}
	}
	if found < 40 {
		t.Errorf("only %d messages are quoted: does the test still find them?", found)
	}
}

// TestCommands wants the documents to name subcommands that there are.
func TestCommands(t *testing.T) {
	known := map[string]bool{"help": true}
	use := regexp.MustCompile(`(?:\bUse: +|pathsCommand\(o, )"([a-z-]+)`)
	files, err := filepath.Glob(filepath.Join(repositoryDir, "cmd/p2pctl/*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		for _, match := range use.FindAllStringSubmatch(readFile(t, file), -1) {
			known[match[1]] = true
		}
	}
	s, err := read(os.DirFS(repositoryDir))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for name, d := range s.documents {
		for _, match := range commands.FindAllStringSubmatch(codeOf(d), -1) {
			found++
			if !known[match[1]] {
				t.Errorf("%s: there is no p2pctl %s", name, match[1])
			}
		}
	}
	if found < 50 {
		t.Errorf("only %d commands are named: does the test still find them?", found)
	}
}

// codeOf is what of a document is in a typewriter face.
func codeOf(d *document) string {
	var b strings.Builder
	_ = ast.Walk(d.node, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.CodeSpan:
			b.WriteString(textOf(n, d.source))
		case *ast.FencedCodeBlock, *ast.CodeBlock:
			b.Write(n.Lines().Value(d.source))
		}
		b.WriteByte('\n')
		return ast.WalkContinue, nil
	})
	return b.String()
}

// messages are all texts in the sources, one to a line, with … for what differs.
func messages(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, floor := range []string{"cmd", "internal", "narstore", "p2p", "substituter"} {
		err := filepath.WalkDir(filepath.Join(repositoryDir, floor), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := goparser.ParseFile(token.NewFileSet(), path, nil, goparser.SkipObjectResolution)
			if err != nil {
				return err
			}
			goast.Inspect(file, func(n goast.Node) bool {
				expression, ok := n.(goast.Expr)
				if !ok {
					return true
				}
				if message, text := messageOf(expression); text {
					all.WriteString(message + "\n")
					return false
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}

// messageOf is a text, or one that is put together of texts and others. It reports
// whether the expression is any.
func messageOf(x goast.Expr) (message string, text bool) {
	switch x := x.(type) {
	case *goast.BasicLit:
		if x.Kind != token.STRING {
			return "…", false
		}
		value, err := strconv.Unquote(x.Value)
		return verbs.ReplaceAllString(value, "…"), err == nil
	case *goast.BinaryExpr:
		if x.Op != token.ADD {
			return "…", false
		}
		left, leftText := messageOf(x.X)
		right, rightText := messageOf(x.Y)
		return left + right, leftText || rightText
	default:
		return "…", false
	}
}
