package rebuild

import (
	"fmt"
	"math"
	"strings"
)

const (
	// functionsPerFile is that of a file of C, tables and texts beside them.
	functionsPerFile = 16
	// bytesPerFile is how many bytes such a file becomes, about.
	bytesPerFile = 16 << 10
	// rewrittenOf is how many functions there are for one that Functions rewrites.
	rewrittenOf = 10
)

// file is one of C or C++, being written.
type file struct {
	strings.Builder
	p    *pkg
	stem string
	// number tells the package's files apart.
	number int
	scope
	used map[string]bool
}

func (f *file) printf(format string, args ...any) { fmt.Fprintf(f, format, args...) }

// sources returns the text of p's files of C, by their names.
func (p *pkg) sources() map[string]string {
	sources := make(map[string]string)
	n := max(1, (p.code+bytesPerFile/2)/bytesPerFile)
	if p.cxx() {
		n = max(1, n/2)
	}
	r := p.random("stems")
	for i := range n {
		stem := fmt.Sprintf("%s%d", choose(r, nouns), i)
		f := p.newFile(stem, i)
		sources[stem+".c"] = f.write()
		p.units = append(p.units, unit{stem, f.exported()})
	}
	return sources
}

func (p *pkg) newFile(stem string, number int) *file {
	f := &file{p: p, stem: stem, number: number, used: make(map[string]bool)}
	for _, library := range p.libraries {
		f.calls = append(f.calls, library.exported()...)
	}
	if len(f.calls) > 40 {
		r := p.random("calls of %s", stem)
		r.Shuffle(len(f.calls), func(i, j int) { f.calls[i], f.calls[j] = f.calls[j], f.calls[i] })
		f.calls = f.calls[:40]
	}
	return f
}

// write returns the file's text.
func (f *file) write() string {
	r := f.p.random("head of %s", f.stem)
	f.printf("/* %s: %s.\n%s */\n", f.stem, choose(r, verbs)+"s the "+choose(r, nouns), paragraph(r, 2, "   "))
	f.printf("#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n#include <string.h>\n")
	for _, library := range f.p.libraries {
		f.printf("#include <%s/%s.h>\n", library.prefix(), library.prefix())
	}
	f.state()
	for i := range 2 + r.IntN(3) {
		f.table(i)
	}
	for i := range functionsPerFile {
		f.function(i)
	}
	return f.String()
}

// state declares what the file's functions work on.
func (f *file) state() {
	r := f.p.random("state of %s", f.stem)
	f.printf("\nstruct state {\n")
	seen := make(map[string]bool)
	for range 6 + r.IntN(8) {
		name := choose(r, nouns)
		if seen[name] {
			continue
		}
		seen[name] = true
		f.fields = append(f.fields, name)
		f.printf("\tuint32_t %s; /* %s */\n", name, sentence(r))
	}
	f.printf("\tunsigned char scratch[%d];\n\tchar report[%d];\n};\n", 64<<r.IntN(4), 80+8*r.IntN(10))
}

// table defines the i-th array of numbers, each by another rule.
func (f *file) table(i int) {
	r := f.p.random("table %d of %s", i, f.stem)
	t := table{name: f.name(choose(r, nouns) + "_table"), length: 32 << r.IntN(5)}
	polynomial, step, phase := r.Uint32()|1<<31, 1+r.IntN(90), r.Float64()
	rule := r.IntN(4)
	f.printf("\nconst uint%d_t %s[%d] = {", []int{32, 16, 16, 8}[rule], t.name, t.length)
	last := 0
	for n := range t.length {
		if n%12 == 0 {
			f.printf("\n\t")
		}
		switch rule {
		case 0: // of a checksum
			crc := uint32(n)
			for range 8 {
				crc = crc>>1 ^ polynomial*(crc&1)
			}
			f.printf("%#x, ", crc)
		case 1: // a wave
			f.printf("%d, ", int(32767*(1+math.Sin(phase+float64(n*step)/float64(t.length)))))
		case 2: // bounds of ranges, as of characters
			last += 1 + r.IntN(step)
			f.printf("%d, ", last&0xffff)
		case 3: // classes of bytes, most of them the same
			f.printf("%d, ", max(0, r.IntN(18)-9))
		}
	}
	f.printf("\n};\n")
	f.tables = append(f.tables, t)
}

// name returns one for something in the file that has no namesake.
func (f *file) name(what string) string {
	name := fmt.Sprintf("%s_%s_%s", strings.ReplaceAll(f.p.name, "-", "_"), f.stem, what)
	if f.p.isLibrary() {
		name = name[len("lib"):]
	}
	for f.used[name] {
		name += "_more"
	}
	f.used[name] = true
	return name
}

// function defines the i-th function.
func (f *file) function(i int) {
	names := f.p.random("name %d of %s", i, f.stem)
	fn := function{name: f.name(choose(names, verbs) + "_" + choose(names, nouns))}
	switch i % 8 {
	case 3:
		fn.signature = scan
	case 5:
		fn.signature = describe
	}
	revision := f.p.revision(f.number*functionsPerFile + i)
	r := f.p.random("function %d of %s, revision %d", i, f.stem, revision)
	f.printf("\n/* %s */\n", strings.TrimSpace(paragraph(r, 1+r.IntN(2), "   ")))
	b := &body{scope: f.scope, r: r}
	switch fn.signature {
	case transform:
		f.printf("int %s(struct state *s, uint32_t a, uint32_t b)\n{\n", fn.name)
		if f.p.changed == Line && f.number == 0 && i == 1 {
			f.printf("\tif (a > 65535)\n\t\treturn -22;\n")
		}
		b.transform()
	case scan:
		f.printf("uint32_t %s(const unsigned char *data, size_t size)\n{\n", fn.name)
		b.scan()
	case describe:
		f.printf("const char *%s(int code)\n{\n", fn.name)
		b.describe()
	}
	f.WriteString(b.String())
	f.printf("}\n")
	f.calls = append(f.calls, fn)
}

// revision says how often the i-th of the package's functions was rewritten.
func (p *pkg) revision(i int) int {
	if p.changed == Functions && i%rewrittenOf == 0 {
		return 1
	}
	return 0
}

func (b *body) transform() {
	b.vars = []string{"a", "b"}
	for _, v := range []string{"x", "y", "z"}[:1+b.r.IntN(3)] {
		b.line("uint32_t %s = %s;", v, b.expr(1))
		b.vars = append(b.vars, v)
	}
	for range 5 + b.r.IntN(9) {
		b.statement()
	}
	b.line("return (int)((%s) & 0x7fffffff);", strings.Join(b.vars, " ^ "))
}

// scan goes through bytes. What it uses is no state.
func (b *body) scan() {
	b.line("uint32_t x = %#xu, y = %du;", b.r.Uint32(), b.r.IntN(100))
	b.line("for (size_t i = 0; i < size; i++) {")
	b.line("\tuint32_t c = data[i];")
	for range 1 + b.r.IntN(4) {
		t := choose(b.r, b.tables)
		switch b.r.IntN(4) {
		case 0:
			b.line("\tx = (x << %d | x >> %d) ^ c;", 5, 27)
		case 1:
			b.line("\tx += %s[(c ^ y) & %d];", t.name, t.length-1)
		case 2:
			b.line("\tif (c == '%c' || c > %d)\n\t\t\ty++;", 'a'+rune(b.r.IntN(26)), 100+b.r.IntN(150))
		case 3:
			b.line("\ty = y * %du + (c & %d);", 3+b.r.IntN(60), 1<<(1+b.r.IntN(7))-1)
		}
	}
	b.line("}")
	b.line("return x ^ y;")
}

// describe puts codes into words.
func (b *body) describe() {
	b.line("switch (code) {")
	for i := range 4 + b.r.IntN(16) {
		b.line("case %d:", i+b.r.IntN(2)*100)
		b.line("\treturn %q;", choose(b.r, adjectives)+" "+choose(b.r, nouns)+" in "+choose(b.r, nouns))
	}
	b.line("}")
	b.line("return %q;", "unknown "+choose(b.r, nouns))
}

// exported returns what the package's header shall declare.
func (f *file) exported() (functions []function) {
	for _, fn := range f.calls {
		if fn.signature != transform && f.used[fn.name] {
			functions = append(functions, fn)
		}
	}
	return functions
}
