package rebuild

import (
	"fmt"
	"strings"
)

// paths is a file of C with the paths that a library knows.
func (p *pkg) paths() string {
	return fmt.Sprintf("/* Where the library is installed. */\nconst char *%[1]s_datadir(void) { return PREFIX \"/share/%[2]s\"; }\n"+
		"const char *%[1]s_version(void) { return VERSION; }\n", p.prefix(), p.name)
}

// headers declare what a library exports: one for each file of C, by their
// names, and one that includes all.
func (p *pkg) headers() map[string]string {
	headers := make(map[string]string)
	var b strings.Builder
	r := p.random("header")
	sentences := p.prose * 2 / 3 / sentenceLength / len(p.exported())
	for _, library := range p.libraries {
		fmt.Fprintf(&b, "#include <%s/%s.h>\n", library.prefix(), library.prefix())
	}
	for _, u := range p.units {
		fmt.Fprintf(&b, "#include <%s/%s.h>\n", p.prefix(), u.stem)
		headers[u.stem] = p.guarded(u.stem, p.declarations(u.exported, sentences))
	}
	fmt.Fprintf(&b, "\n/* %s */\nconst char *%s_datadir(void);\nconst char *%s_version(void);\n", sentence(r), p.prefix(), p.prefix())
	headers[p.prefix()] = p.guarded(p.prefix(), b.String())
	return headers
}

// sentenceLength is that of a sentence in bytes, about.
const sentenceLength = 90

func (p *pkg) declarations(functions []function, sentences int) string {
	var b strings.Builder
	for _, f := range functions {
		r := p.random("documentation of %s", f.name)
		fmt.Fprintf(&b, "\n/**\n%s", paragraph(r, 1+sentences/2+r.IntN(sentences+1), " * "))
		switch f.signature {
		case scan:
			fmt.Fprintf(&b, " * @param data  %s\n * @param size  %s\n */\n", sentence(r), sentence(r))
			fmt.Fprintf(&b, "uint32_t %s(const unsigned char *data, size_t size);\n", f.name)
		case describe:
			fmt.Fprintf(&b, " * @param code  %s\n */\nconst char *%s(int code);\n", sentence(r), f.name)
		case transform: // Not exported: its state is its file's own.
		}
	}
	return b.String()
}

// guarded makes a header of declarations.
func (p *pkg) guarded(stem, declarations string) string {
	guard := strings.ToUpper(p.prefix() + "_" + stem + "_H")
	return fmt.Sprintf("#ifndef %[1]s\n#define %[1]s\n#include <stddef.h>\n#include <stdint.h>\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n%s"+
		"#ifdef __cplusplus\n}\n#endif\n#endif\n", guard, declarations)
}

func (p *pkg) pkgConfig() string {
	var requires []string
	for _, library := range p.libraries {
		requires = append(requires, library.prefix())
	}
	return fmt.Sprintf("prefix=@out@\nincludedir=@dev@/include\nlibdir=@out@/lib\n\nName: %s\nDescription: %s\nVersion: @version@\nRequires: %s\n"+
		"Libs: -L${libdir} -l%s\nCflags: -I${includedir}\n", p.name, sentence(p.random("pc")), strings.Join(requires, " "), p.prefix())
}

// main is the file of a program's main function.
func (p *pkg) main() string {
	var b strings.Builder
	r := p.random("main")
	b.WriteString("#include <stdio.h>\n#include <stdint.h>\n#include <stdlib.h>\n#include <string.h>\n")
	for _, library := range p.libraries {
		fmt.Fprintf(&b, "#include <%s/%s.h>\n", library.prefix(), library.prefix())
	}
	for _, f := range p.exported() {
		if f.signature == scan {
			fmt.Fprintf(&b, "uint32_t %s(const unsigned char *data, size_t size);\n", f.name)
		}
	}
	b.WriteString("\nstatic const char *const config = PREFIX \"/etc/" + p.name + ".conf\";\n\nstatic void usage(void)\n{\n")
	fmt.Fprintf(&b, "\tputs(\"%s \" VERSION);\n", p.name)
	for range 4 + r.IntN(20) {
		fmt.Fprintf(&b, "\tputs(\"  --%s-%s  %s\");\n", choose(r, verbs), choose(r, nouns), sentence(r))
	}
	b.WriteString("}\n\nint main(int argc, char **argv)\n{\n\tuint32_t sum = 0;\n\tif (argc < 2) {\n\t\tusage();\n\t\treturn 2;\n\t}\n")
	b.WriteString("\tFILE *f = fopen(config, \"r\");\n\tif (f)\n\t\tfclose(f);\n\tconst unsigned char *data = (const unsigned char *)argv[1];\n")
	for _, f := range p.exported() {
		if f.signature == scan {
			fmt.Fprintf(&b, "\tif (!strcmp(argv[1], %q))\n\t\tsum += %s(data, strlen(argv[1]));\n", f.name[len(p.name):], f.name)
		}
	}
	for _, library := range p.libraries {
		fmt.Fprintf(&b, "\tprintf(\"%%s %%s\\n\", %[1]s_version(), %[1]s_datadir());\n", library.prefix())
	}
	b.WriteString("\tprintf(\"%u\\n\", sum);\n\treturn 0;\n}\n")
	return b.String()
}

// wrapper is a script that runs the program it is named after.
func (p *pkg) wrapper() string {
	var b strings.Builder
	b.WriteString("#!@shell@ -e\n")
	for _, library := range p.libraries {
		fmt.Fprintf(&b, "# %s\n", library.name)
	}
	fmt.Fprintf(&b, "for library in @libraries@; do\n  export XDG_DATA_DIRS=$library/share:$XDG_DATA_DIRS\ndone\n")
	fmt.Fprintf(&b, "export XDG_DATA_DIRS=@out@/share:$XDG_DATA_DIRS\nexec -a \"$0\" \"@out@/bin/.%s-wrapped\" \"$@\"\n", p.name)
	return b.String()
}

// namesPaths is how many packages there are for one whose manual names its
// paths. It is a guess: of the system's packages some do, such as dbus and man-db.
const namesPaths = 10

// manual writes manual pages.
func (w *writer) manual(p *pkg, dir string, section int) {
	r := p.random("manual")
	named := r.IntN(namesPaths) == 0
	for i := range 1 + p.prose/3/(6<<10) {
		title := p.name
		if i > 0 {
			title = fmt.Sprintf("%s_%s_%s", p.name, choose(r, verbs), choose(r, nouns))
		}
		var b strings.Builder
		fmt.Fprintf(&b, ".TH %s %d\n.SH NAME\n%s \\- %s\n.SH DESCRIPTION\n", strings.ToUpper(title), section, title, sentence(r))
		for range 4 + r.IntN(24) {
			fmt.Fprintf(&b, ".TP\n.B \\-\\-%s\\-%s\n%s", choose(r, verbs), choose(r, nouns), paragraph(r, 1+r.IntN(4), ""))
		}
		if named {
			fmt.Fprintf(&b, ".SH FILES\n@out@/etc/%s.conf, @out@/share/%s\n", p.name, p.name)
		}
		w.file(fmt.Sprintf("%sman/man%d/%s.%d", dir, section, title, section), b.String())
	}
}

// documents writes what somebody might read.
func (w *writer) documents(p *pkg, dir string) {
	r := p.random("documents")
	for rest, i := p.prose, 0; rest > 0; i++ {
		var b strings.Builder
		title := fmt.Sprintf("%s-%s-%d", choose(r, verbs), choose(r, nouns), i)
		fmt.Fprintf(&b, "<html><head><title>%s</title></head>\n<body><h1>%s %s</h1>\n", title, p.name, title)
		for range 8 + r.IntN(60) {
			fmt.Fprintf(&b, "<h2 id=\"%s\">%s</h2>\n<p>\n%s</p>\n", choose(r, nouns), sentence(r), paragraph(r, 2+r.IntN(6), ""))
		}
		if r.IntN(4) == 0 {
			fmt.Fprintf(&b, "<pre>@out@/share/doc/%s/%s.html</pre>\n", p.name, title)
		}
		b.WriteString("</body></html>\n")
		rest -= b.Len()
		w.file(dir+"doc/"+title+".html", b.String())
	}
}

// scripts writes programs that are scripts.
func (w *writer) scripts(p *pkg, dir string) {
	r := p.random("scripts")
	for rest, i := p.prose, 0; rest > 0; i++ {
		var b strings.Builder
		fmt.Fprintf(&b, "#!@shell@\n# %s\nset -eu\n", sentence(r))
		for range 3 + r.IntN(14) {
			verb, noun := choose(r, verbs), choose(r, nouns)
			fmt.Fprintf(&b, "\n# %s\n%s_%s() {\n", sentence(r), verb, noun)
			fmt.Fprintf(&b, "  for %s in \"$@\"; do\n    if [ -e \"$%s\" ]; then\n      echo \"%s: $%s\" >&2\n", noun, noun, sentence(r), noun)
			fmt.Fprintf(&b, "    fi\n    @out@/bin/%s \"$%s\" | sort -u >\"$TMPDIR/%s\"\n  done\n}\n", p.name, noun, choose(r, nouns))
		}
		name := p.name
		if i > 0 {
			name = fmt.Sprintf("%s-%s-%d", choose(r, verbs), choose(r, nouns), i)
		}
		rest -= b.Len()
		w.file(dir+"bin/"+name, b.String())
	}
}

// data writes files that refer to nothing, such as those of locales.
func (w *writer) data(p *pkg, dir string) {
	r := p.random("data")
	for rest, i := p.prose, 0; rest > 0; i++ {
		var b strings.Builder
		b.WriteString("[\n")
		for range 40 + r.IntN(400) {
			fmt.Fprintf(&b, "  {\"id\": %d, \"%s\": %q, \"%s\": [%d, %.4f], \"note\": %q},\n", r.IntN(1<<20),
				choose(r, nouns), choose(r, adjectives)+" "+choose(r, nouns), choose(r, nouns), r.IntN(1000), r.NormFloat64(), sentence(r))
		}
		b.WriteString("  {}\n]\n")
		rest -= b.Len()
		w.file(fmt.Sprintf("%sshare/%s-%d.json", dir, choose(r, nouns), i), b.String())
	}
}
