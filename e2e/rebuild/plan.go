package rebuild

import (
	"crypto/sha256"
	"fmt"
	"math"
	"math/rand/v2"
)

// kind is what a package is.
type kind int

const (
	cLibrary kind = iota
	cxxLibrary
	program
	scripts
	data
)

// pkg is one package.
type pkg struct {
	name, version string
	kind          kind
	// outputs are those beside out.
	outputs []string
	// libraries are those that it is linked with.
	libraries []*pkg
	// shell is what its scripts are run by.
	shell *pkg
	// code is about how many bytes its programs and libraries shall have, prose
	// how many its documents and data.
	code, prose int

	seed uint64
	// changed says what this package has seen.
	changed Change
	// units are the files of C, once these are written.
	units []unit
}

// unit is a file of C and what others may call of it.
type unit struct {
	stem     string
	exported []function
}

// exported returns what others may call.
func (p *pkg) exported() (functions []function) {
	for _, u := range p.units {
		functions = append(functions, u.exported...)
	}
	return functions
}

// random returns the source of all that is decided about something of p.
func (p *pkg) random(format string, args ...any) *rand.Rand {
	what := fmt.Sprintf("%d %s ", p.seed, p.name) + fmt.Sprintf(format, args...)
	return rand.New(rand.NewChaCha8(sha256.Sum256([]byte(what))))
}

// prefix begins the names of what a library exports.
func (p *pkg) prefix() string { return p.name[len("lib"):] }

func (p *pkg) isLibrary() bool { return p.kind == cLibrary || p.kind == cxxLibrary }

const (
	// leafName and shellName are packages that others need in ways of their own.
	leafName  = "libsolder"
	shellName = "tersh"
	// spread is the standard deviation of the logarithm of sizes. That of
	// cache.nixos.org's NARs is 3, which would take gigabytes to show.
	spread = 1
)

// plan returns the packages: each stands behind those that it needs. The first
// is the leaf.
func plan(cfg Config) []*pkg {
	leaf := &pkg{name: leafName, version: "1.0", kind: cLibrary, outputs: []string{"dev", "man"}, code: cfg.MedianCode * 3 / 2, prose: 16 << 10}
	shell := &pkg{name: shellName, version: "5.2", kind: program, libraries: []*pkg{leaf}, code: cfg.MedianCode * 3, prose: 24 << 10}
	leaf.shell, shell.shell = shell, shell // The leaf has no scripts.
	pkgs := []*pkg{leaf, shell}
	kinds := assign(cfg.Packages - len(pkgs))
	graph := (&pkg{seed: cfg.Seed}).random("graph")
	sizes := graph.Perm(len(kinds))
	for i, k := range kinds {
		p := &pkg{name: k.name(i), version: fmt.Sprintf("%d.%d.%d", graph.IntN(6), graph.IntN(20), graph.IntN(9)), kind: k, shell: shell}
		size := quantile(float64(sizes[i])+0.5, float64(len(kinds)))
		p.code = int(float64(cfg.MedianCode) * size)
		p.prose = int(float64(cfg.MedianCode) * 0.4 * math.Sqrt(size) * (0.5 + graph.Float64()))
		switch k {
		case cLibrary, cxxLibrary:
			// Two in three have their headers apart, and one in four its manual.
			if i%3 > 0 {
				p.outputs = append(p.outputs, "dev")
			}
			if i%4 == 0 {
				p.outputs = append(p.outputs, "man")
			}
			// Half of the libraries are on the first level, the others stand on them.
			p.libraries = p.pick(graph, pkgs, i < len(kinds)/4)
		case program:
			p.libraries = p.pick(graph, pkgs, false)
		case scripts:
			p.prose = 4<<10 + graph.IntN(40<<10)
		case data:
			p.prose = p.code / 3
		}
		pkgs = append(pkgs, p)
	}
	for _, p := range pkgs {
		p.seed = cfg.Seed
	}
	change(pkgs, cfg.Change)
	return pkgs
}

// assign returns the kinds of n packages: libraries first.
func assign(n int) []kind {
	kinds := make([]kind, 0, n)
	for i := range n {
		switch at := float64(i) / float64(n); {
		case at < 0.5:
			if i%4 == 3 {
				kinds = append(kinds, cxxLibrary)
			} else {
				kinds = append(kinds, cLibrary)
			}
		case at < 0.84:
			kinds = append(kinds, program)
		case at < 0.93:
			kinds = append(kinds, scripts)
		default:
			kinds = append(kinds, data)
		}
	}
	return kinds
}

// name returns that of the i-th package. Those of libraries begin with "lib".
func (k kind) name(i int) string {
	stem := syllables[i%len(syllables)] + syllables[(i*7+3)%len(syllables)]
	switch k {
	case cLibrary, cxxLibrary:
		return "lib" + stem
	case scripts:
		return stem + "-hooks"
	case data:
		return stem + "-data"
	default:
		return stem
	}
}

// pick returns which of the libraries p is linked with. Every third is with the
// leaf itself.
func (p *pkg) pick(graph *rand.Rand, pkgs []*pkg, first bool) (picked []*pkg) {
	if graph.IntN(3) == 0 {
		picked = append(picked, pkgs[0])
	}
	if first {
		return picked
	}
	var libraries []*pkg
	for _, q := range pkgs[1:] {
		if q.kind == cLibrary || q.kind == cxxLibrary && p.kind != cLibrary {
			libraries = append(libraries, q)
		}
	}
	for _, i := range graph.Perm(len(libraries))[:min(len(libraries), 1+graph.IntN(5))] {
		picked = append(picked, libraries[i])
	}
	return picked
}

// change has it happen to the package that it is about.
func change(pkgs []*pkg, c Change) {
	leaf := pkgs[0]
	switch c {
	case None:
		return
	case Rename:
		leaf.version = "1.1"
	case Lengthen:
		leaf.version = "1.0.1"
	case Functions:
		rewritten(pkgs).changed = c
		return
	case Line:
	}
	leaf.changed = Line
}

// Rewritten returns the attribute of the program that Functions is about.
func Rewritten(cfg Config) string { return rewritten(plan(cfg.complete())).name }

// rewritten returns the program that Functions is about: that with most code,
// but the shell.
func rewritten(pkgs []*pkg) *pkg {
	var largest *pkg
	for _, p := range pkgs {
		if p.kind == program && p.shell != p && (largest == nil || p.code > largest.code) {
			largest = p
		}
	}
	return largest
}

// quantile returns e to the power of spread times a normal variable, that of
// which at in n are below.
func quantile(at, n float64) float64 {
	return math.Exp(spread * math.Sqrt2 * math.Erfinv(2*at/n-1))
}
