package rebuild

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// signature is what a function takes and returns.
type signature int

const (
	// transform is int f(struct state *s, uint32_t a, uint32_t b).
	transform signature = iota
	// scan is uint32_t f(const unsigned char *data, size_t size).
	scan
	// describe is const char *f(int code).
	describe
)

type function struct {
	name string
	signature
}

// table is an array of numbers whose length is a power of two.
type table struct {
	name   string
	length int
}

// scope is what a function may use.
type scope struct {
	fields []string
	tables []table
	calls  []function
}

// body writes statements of C, which are C++ as well.
type body struct {
	strings.Builder
	scope
	r *rand.Rand
	// vars are variables of the type uint32_t.
	vars  []string
	depth int
}

func (b *body) line(format string, args ...any) {
	for range b.depth + 1 {
		b.WriteByte('\t')
	}
	fmt.Fprintf(b, format, args...)
	b.WriteByte('\n')
}

// block writes statements in braces behind head.
func (b *body) block(head string, statements int) {
	b.line("%s {", head)
	b.depth++
	known := len(b.vars)
	for range statements {
		b.statement()
	}
	b.vars = b.vars[:known]
	b.depth--
	b.line("}")
}

const deepest = 3

func (b *body) statement() {
	choices := 12
	if b.depth >= deepest {
		choices = 7
	}
	switch b.r.IntN(choices) {
	case 0, 1:
		b.line("%s = %s;", choose(b.r, b.vars), b.expr(2))
	case 2:
		b.line("%s %s= %s;", choose(b.r, b.vars), choose(b.r, []string{"+", "^", "-", "|", "&", "*"}), b.expr(2))
	case 3:
		b.line("s->%s = %s;", choose(b.r, b.fields), b.expr(2))
	case 4:
		b.line("s->%s %s= %s;", choose(b.r, b.fields), choose(b.r, []string{"+", "^", "-"}), b.expr(1))
	case 5:
		b.call()
	case 6:
		b.line("s->scratch[%s %% sizeof s->scratch] = (unsigned char)(%s);", b.expr(1), b.expr(1))
	case 7, 8:
		b.block("if ("+b.condition()+")", 1+b.r.IntN(3))
	case 9:
		b.line("if (%s)", b.condition())
		b.line("\treturn -%d;", 1+b.r.IntN(40))
	case 10:
		b.loop()
	default:
		b.selection()
	}
}

func (b *body) loop() {
	i := []string{"i", "j", "k", "l"}[min(b.depth, 3)]
	head := fmt.Sprintf("for (uint32_t %s = 0; %s < %s; %s++)", i, i, b.bound(), i)
	if b.r.IntN(3) == 0 {
		v := choose(b.r, b.vars)
		head = fmt.Sprintf("while (%s > %d && %s)", v, b.r.IntN(9), b.condition())
		b.line("%s {", head)
		b.line("\t%s >>= %d;", v, 1+b.r.IntN(4))
		b.line("}")
		return
	}
	b.vars = append(b.vars, i)
	b.block(head, 1+b.r.IntN(3))
	b.vars = b.vars[:len(b.vars)-1]
}

func (b *body) bound() string {
	if b.r.IntN(2) == 0 {
		return fmt.Sprint(3 + b.r.IntN(60))
	}
	return fmt.Sprintf("(s->%s & %d)", choose(b.r, b.fields), 1<<(3+b.r.IntN(5))-1)
}

// selection writes a switch.
func (b *body) selection() {
	b.line("switch (%s %% %du) {", b.expr(1), 5+b.r.IntN(12))
	at := 0
	for range 3 + b.r.IntN(5) {
		at += b.r.IntN(2)
		b.line("case %d:", at)
		at++
		b.depth++
		b.statement()
		b.line("break;")
		b.depth--
	}
	b.line("default:")
	b.line("\t%s += %s;", choose(b.r, b.vars), b.expr(1))
	b.line("}")
}

// call writes a call of one of the functions at hand.
func (b *body) call() {
	if len(b.calls) == 0 || b.r.IntN(4) == 0 {
		format, args := choose(b.r, verbs)+" "+choose(b.r, nouns)+": "+choose(b.r, adjectives)+" "+choose(b.r, nouns), ""
		for range 1 + b.r.IntN(2) {
			format += " %u"
			args += ", " + b.expr(1)
		}
		b.line("snprintf(s->report, sizeof s->report, %q%s);", format, args)
		return
	}
	switch f := choose(b.r, b.calls); f.signature {
	case transform:
		b.line("if (%s(s, %s, %s) < 0)", f.name, b.expr(1), b.expr(1))
		b.line("\treturn -%d;", 1+b.r.IntN(40))
	case scan:
		b.line("%s ^= %s(s->scratch, %s %% sizeof s->scratch);", choose(b.r, b.vars), f.name, b.expr(0))
	case describe:
		b.line("strncpy(s->report, %s((int)%s), sizeof s->report - 1);", f.name, b.expr(0))
	}
}

func (b *body) condition() string {
	c := fmt.Sprintf("%s %s %s", b.expr(1), choose(b.r, []string{"<", ">", "==", "!=", "<=", ">="}), b.expr(0))
	switch b.r.IntN(4) {
	case 0:
		return c + " && s->" + choose(b.r, b.fields) + " != 0"
	case 1:
		return fmt.Sprintf("(%s & %du) || (%s)", choose(b.r, b.vars), 1<<b.r.IntN(20), c)
	}
	return c
}

func (b *body) expr(depth int) string {
	if depth == 0 {
		switch b.r.IntN(6) {
		case 0, 1, 2:
			return choose(b.r, b.vars)
		case 3:
			return "s->" + choose(b.r, b.fields)
		case 4:
			if len(b.tables) > 0 {
				t := choose(b.r, b.tables)
				return fmt.Sprintf("%s[%s & %d]", t.name, choose(b.r, b.vars), t.length-1)
			}
		}
		return b.constant()
	}
	x, y := b.expr(depth-1), b.expr(b.r.IntN(depth))
	switch b.r.IntN(9) {
	case 0, 1:
		return fmt.Sprintf("(%s + %s)", x, y)
	case 2:
		return fmt.Sprintf("(%s - %s)", x, y)
	case 3:
		return fmt.Sprintf("(%s * %s)", x, y)
	case 4:
		return fmt.Sprintf("(%s ^ %s)", x, y)
	case 5:
		return fmt.Sprintf("(%s >> %d)", x, 1+b.r.IntN(15))
	case 6:
		return fmt.Sprintf("(%s << %d | %s)", x, 1+b.r.IntN(15), y)
	case 7:
		return fmt.Sprintf("(%s ? %s : %s)", y, x, b.expr(0))
	default:
		return fmt.Sprintf("(%s / (%s | 1))", x, y)
	}
}

// constant returns a number as programs have them.
func (b *body) constant() string {
	switch b.r.IntN(5) {
	case 0, 1:
		return fmt.Sprintf("%du", 1+b.r.IntN(30))
	case 2:
		return fmt.Sprintf("%du", 1<<b.r.IntN(16))
	case 3:
		return fmt.Sprintf("%#xu", 1<<(1+b.r.IntN(16))-1)
	default:
		return fmt.Sprintf("%#xu", b.r.Uint32())
	}
}
