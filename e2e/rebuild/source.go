package rebuild

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// writer writes files until one cannot be written.
type writer struct {
	dir string
	err error
}

func (w *writer) file(name, text string) {
	if w.err != nil {
		return
	}
	path := filepath.Join(w.dir, filepath.FromSlash(name))
	if w.err = os.MkdirAll(filepath.Dir(path), 0o755); w.err == nil {
		w.err = os.WriteFile(path, []byte(text), 0o644)
	}
}

// expression returns the text of default.nix.
func expression(pkgs []*pkg, cfg Config) string {
	var b strings.Builder
	id := "none"
	if cfg.BuildID {
		id = "sha1"
	}
	fmt.Fprintf(&b, "let\n  package = import ./package.nix { buildID = %q; };\nin rec {\n", id)
	var all []string
	for i, p := range pkgs {
		fmt.Fprintf(&b, "  %s = package {\n    name = %q;\n    version = %q;\n    src = ./src/%s;\n", p.name, p.name, p.version, p.name)
		if i > 0 {
			fmt.Fprintf(&b, "    leaf = %s;\n", leafName)
		}
		fmt.Fprintf(&b, "    outputs = [ %s];\n    libraries = [ ", quoted(p.outputs))
		for _, library := range p.libraries {
			fmt.Fprintf(&b, "%s ", library.name)
		}
		fmt.Fprintf(&b, "];\n    cxx = %t;\n", p.linksCXX())
		if p.shell != p && i > 0 {
			fmt.Fprintf(&b, "    shell = \"${%s}/bin/%s\";\n", p.shell.name, p.shell.name)
		}
		b.WriteString("  };\n")
		all = append(all, p.name+".out")
		for _, output := range p.outputs {
			all = append(all, p.name+"."+output)
		}
	}
	fmt.Fprintf(&b, "  system = derivation {\n    name = \"system\";\n    system = builtins.currentSystem;\n    builder = \"/bin/sh\";\n")
	fmt.Fprintf(&b, "    args = [ ./system.sh ];\n    packages = [\n      %s\n    ];\n  };\n}\n", strings.Join(all, "\n      "))
	return b.String()
}

func quoted(words []string) string {
	var b strings.Builder
	for _, w := range words {
		fmt.Fprintf(&b, "%q ", w)
	}
	return b.String()
}

// linksCXX reports whether p needs the linker of C++.
func (p *pkg) linksCXX() bool {
	return p.cxx() || slices.ContainsFunc(p.libraries, (*pkg).linksCXX)
}

// source writes what package p is built from.
func (w *writer) source(p *pkg) {
	dir := "src/" + p.name + "/"
	if p.kind != scripts && p.kind != data {
		for _, sources := range []map[string]string{p.sources(), p.classes()} {
			for name, text := range sources {
				w.file(dir+"src/"+name, text)
			}
		}
	}
	switch p.kind {
	case cLibrary, cxxLibrary:
		w.file(dir+"src/paths.c", p.paths())
		for stem, text := range p.headers() {
			w.file(dir+"include/"+p.prefix()+"/"+stem+".h", text)
		}
		w.file(dir+"pkgconfig/"+p.prefix()+".pc", p.pkgConfig())
		w.manual(p, dir, 3)
	case program:
		w.file(dir+"src/main.c", p.main())
		if p.random("wrapper").IntN(2) == 0 && p.shell != p {
			w.file(dir+"bin/"+p.name, p.wrapper())
		}
		w.manual(p, dir, 1)
	case scripts:
		w.scripts(p, dir)
		return
	case data:
		w.data(p, dir)
		return
	}
	w.documents(p, dir)
}
