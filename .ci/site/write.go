package main

import (
	"bytes"
	_ "embed"
	"html/template"
	"io/fs"
	"net/url"
	"os"
	"path"
	"strings"

	"github.com/yuin/goldmark/ast"
)

// repository is where files are to be seen that are no part of the site.
const repository = "https://github.com/nar-p2p/nar-p2p/blob/main/"

//go:embed page.html
var pageHTML string

//go:embed style.css
var styleSheet []byte

var pageTemplate = template.Must(template.New("page").Parse(pageHTML))

// page is what the template gets.
type page struct {
	Title string
	// Root leads from the page to the site's first folder.
	Root string
	List []section
	Body template.HTML
}

// section is a part of the list of pages.
type section struct {
	Title string
	Pages []entry
}

type entry struct {
	Title, Address string
	Here           bool
}

// write makes a file of each document of the site, and copies what lies beside them.
func (s *site) write(out *os.Root) error {
	for _, d := range s.documents {
		if !d.inSite() {
			continue
		}
		data, err := s.render(d)
		if err != nil {
			return err
		}
		if err := put(out, pageOf(d.path), data); err != nil {
			return err
		}
	}
	for _, name := range s.files {
		data, err := fs.ReadFile(s.tree, name)
		if err != nil {
			return err
		}
		if err := put(out, strings.TrimPrefix(name, folder+"/"), data); err != nil {
			return err
		}
	}
	return put(out, "style.css", styleSheet)
}

func put(out *os.Root, name string, data []byte) error {
	if err := out.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	return out.WriteFile(name, data, 0o644)
}

func (s *site) render(d *document) ([]byte, error) {
	for _, l := range d.links {
		l.node.Destination = []byte(s.address(d, l.to))
		// Who reads the site knows pages by their titles.
		if to, err := s.follow(d, l.to); err == nil && l.namesFile() && s.documents[to] != nil && s.documents[to].inSite() {
			l.node.RemoveChildren(l.node)
			l.node.AppendChild(l.node, ast.NewString([]byte(s.documents[to].title)))
		}
	}
	var body bytes.Buffer
	if err := markdown.Renderer().Render(&body, d.source, d.node); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err := pageTemplate.Execute(&out, page{
		Title: d.title, Root: rootFrom(d), List: s.list(d),
		Body: template.HTML(body.String()), // The documents are the project's own.
	})
	return out.Bytes(), err
}

// list is that of the first page, seen from d: its headings, and the links at the
// beginning of items.
func (s *site) list(d *document) []section {
	first := s.documents[start]
	sections := []section{{Pages: []entry{{"Start here", rootFrom(d) + "index.html", d == first}}}}
	// The walk has no errors of its own.
	_ = ast.Walk(first.node, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.Heading:
			if n.Level == 2 {
				sections = append(sections, section{Title: textOf(n, first.source)})
			}
		case *ast.ListItem:
			if to := s.entryOf(n); to != nil {
				last := &sections[len(sections)-1]
				last.Pages = append(last.Pages, entry{to.title, rootFrom(d) + pageOf(to.path), d == to})
			}
		}
		return ast.WalkContinue, nil
	})
	return sections
}

// entryOf is the document to which an item of the first page leads, if it begins
// with a link whose text is the name of its file.
func (s *site) entryOf(item *ast.ListItem) *document {
	first := s.documents[start]
	for _, l := range first.links {
		if l.node.Parent() == item.FirstChild() && l.node.PreviousSibling() == nil && l.namesFile() {
			to, err := s.follow(first, l.to)
			if err == nil {
				return s.documents[to]
			}
		}
	}
	return nil
}

// address is that of a link in the site.
func (s *site) address(from *document, to string) string {
	name, err := s.follow(from, to)
	u, errURL := url.Parse(to)
	if err != nil || errURL != nil || name == "" || u.Path == "" {
		return to
	}
	if !strings.HasPrefix(name, folder+"/") {
		return repository + name
	}
	u.Path = rootFrom(from) + strings.TrimPrefix(name, folder+"/")
	if s.documents[name] != nil {
		u.Path = rootFrom(from) + pageOf(name)
	}
	return u.String()
}

// pageOf is the file of a document, in the site.
func pageOf(name string) string {
	name = strings.TrimPrefix(strings.TrimSuffix(name, ".md"), folder+"/") + ".html"
	if path.Base(name) == "README.html" {
		return path.Join(path.Dir(name), "index.html")
	}
	return name
}

// rootFrom leads from a document's page to the site's first folder.
func rootFrom(d *document) string {
	return strings.Repeat("../", strings.Count(d.path, "/")-1)
}
