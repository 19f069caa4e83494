package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"slices"
	"strings"
	"unicode"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"
)

// folder is where the site's documents are, and start is its first page.
const (
	folder = "docs"
	start  = folder + "/README.md"
	// reports are written by "make test-full", whoever reads them knows where.
	reports = folder + "/reports/"
)

// others are documents of which only the links are checked.
var others = []string{"README.md", "CHANGELOG.md", ".github/SECURITY.md"}

// site is all documents.
type site struct {
	tree fs.FS
	// documents are by their path in the repository.
	documents map[string]*document
	// files are others beside the documents, which links may lead to.
	files []string
}

// document is a file of Markdown.
type document struct {
	path   string
	source []byte
	node   ast.Node
	title  string
	// anchors are those of the headings.
	anchors map[string]bool
	links   []link
}

// link leads from a line of a document to somewhere.
type link struct {
	line int
	to   string
	text string
	node *ast.Link
}

// namesFile reports whether the link's text is the file to which it leads.
func (l *link) namesFile() bool {
	file, _, _ := strings.Cut(l.to, "#")
	return file != "" && l.text == file
}

func (d *document) inSite() bool { return strings.HasPrefix(d.path, folder+"/") }

// read parses all documents.
func read(tree fs.FS) (*site, error) {
	s := &site{tree: tree, documents: make(map[string]*document)}
	err := fs.WalkDir(tree, folder, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil || entry.IsDir():
			return err
		case path.Ext(name) == ".md":
			return s.add(name)
		}
		s.files = append(s.files, name)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, name := range others {
		if err := s.add(name); err != nil {
			return nil, err
		}
	}
	if s.documents[start] == nil {
		return nil, fmt.Errorf("%s is missing", start)
	}
	return s, nil
}

// markdown understands what GitHub does, as far as these documents go.
var markdown = goldmark.New(goldmark.WithExtensions(extension.Table, extension.Linkify))

func (s *site) add(name string) error {
	source, err := fs.ReadFile(s.tree, name)
	if err != nil {
		return err
	}
	d := &document{path: name, source: source, anchors: make(map[string]bool)}
	d.node = markdown.Parser().Parse(text.NewReader(source), parser.WithContext(parser.NewContext()))
	err = ast.Walk(d.node, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.Heading:
			d.heading(n)
		case *ast.Link:
			d.links = append(d.links, link{d.lineOf(n), string(n.Destination), textOf(n, source), n})
		}
		return ast.WalkContinue, nil
	})
	s.documents[name] = d
	return err
}

// heading gives a heading the anchor that GitHub gives it.
func (d *document) heading(n *ast.Heading) {
	words := textOf(n, d.source)
	if n.Level == 1 && d.title == "" {
		d.title = words
	}
	anchor := anchorOf(words)
	for i := 1; d.anchors[anchor]; i++ {
		anchor = fmt.Sprintf("%s-%d", anchorOf(words), i)
	}
	d.anchors[anchor] = true
	n.SetAttributeString("id", []byte(anchor))
}

// anchorOf keeps letters, digits, - and _, and makes blanks a -.
func anchorOf(words string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
			return unicode.ToLower(r)
		default:
			return -1
		}
	}, words)
}

// textOf is what is read of a node.
func textOf(n ast.Node, source []byte) string {
	var b bytes.Buffer
	// The walk has no errors of its own.
	_ = ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if entering {
			switch n := n.(type) {
			case *ast.Text:
				b.Write(n.Segment.Value(source))
				if n.SoftLineBreak() {
					b.WriteByte(' ')
				}
			case *ast.String:
				b.Write(n.Value)
			}
		}
		return ast.WalkContinue, nil
	})
	return b.String()
}

// lineOf is the line in which the block of a node begins.
func (d *document) lineOf(n ast.Node) int {
	for ; n != nil; n = n.Parent() {
		if n.Type() == ast.TypeBlock && n.Lines().Len() > 0 {
			return 1 + bytes.Count(d.source[:n.Lines().At(0).Start], []byte("\n"))
		}
	}
	return 1
}

// check follows all links within the repository.
func (s *site) check() error {
	var errs []error
	reached := map[string]bool{start: true}
	for _, name := range sorted(s.documents) {
		d := s.documents[name]
		for _, l := range d.links {
			to, err := s.follow(d, l.to)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s:%d: %s: %w", name, l.line, l.to, err))
			}
			reached[to] = reached[to] || to != name
		}
	}
	for _, name := range sorted(s.documents) {
		if s.documents[name].inSite() && !reached[name] && !strings.HasPrefix(name, reports) {
			errs = append(errs, fmt.Errorf("%s: nothing leads to it", name))
		}
	}
	return errors.Join(errs...)
}

// follow returns the path in the repository to which a link leads, or "" where it
// leads elsewhere.
func (s *site) follow(from *document, to string) (string, error) {
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "" {
		return "", err
	}
	name := from.path
	if u.Path != "" {
		name = path.Join(path.Dir(from.path), u.Path)
	}
	if _, err := fs.Stat(s.tree, name); err != nil {
		return "", errors.New("there is no such file")
	}
	if d := s.documents[name]; u.Fragment != "" && (d == nil || !d.anchors[u.Fragment]) {
		return name, errors.New("there is no such heading")
	}
	return name, nil
}

func sorted(documents map[string]*document) []string {
	names := make([]string, 0, len(documents))
	for name := range documents {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
