// Package rebuild writes closures of packages for real Nix to build with a real
// compiler, and their rebuilds after a change: what a machine meets when it goes
// from one revision of nixpkgs to the next.
//
// The packages are libraries and programs in C and C++, scripts, and data. They
// find each other as those of nixpkgs do: by run paths, pkg-config files, headers
// that include each other, paths compiled into programs, shebangs, and files in
// nix-support. Libraries have their headers and their manual pages in outputs of
// their own. About seven tenths of all bytes are ELF, and the median of the NARs
// is near 90 KiB, as in cache.nixos.org; the large ones, which hold most of the
// bytes there, are fewer and smaller here, so that a build takes no hour.
//
// What is compiled is generated, but reads like code: no two functions of a
// closure are the same. A closure depends on its Config alone. Each function,
// text and table has a source of random numbers of its own, so that a Change
// changes nothing else.
//
// Measure compares two such closures without a network.
package rebuild

import (
	"embed"
	"fmt"
)

// Change is what happened to the packages since the first build.
type Change int

// The changes. Everything is built from the leaf, a library in C, so each of
// them but Functions rebuilds all.
const (
	// None is the first build.
	None Change = iota
	// Line adds a line to a function of the leaf.
	Line
	// Rename is Line in a new version of the leaf, 1.1 after 1.0.
	Rename
	// Lengthen is Line in a new version with a longer number, 1.0.1.
	Lengthen
	// Functions rewrites each tenth function of one program on which nothing
	// depends.
	Functions
)

// Config says what to write.
type Config struct {
	// Packages is the number of packages beside the system, at least 8.
	Packages int
	// Seed decides on everything.
	Seed uint64
	// MedianCode is the size in bytes that half of the packages' programs and
	// libraries exceed; 0 means 90 KiB.
	MedianCode int
	// BuildID has the linker write an identifier of each program into it, as
	// Debian's does. That of nixpkgs does not.
	BuildID bool
	Change  Change
}

// complete returns the configuration with its defaults.
func (cfg Config) complete() Config {
	if cfg.MedianCode == 0 {
		cfg.MedianCode = defaultMedianCode
	}
	return cfg
}

const (
	defaultMedianCode = 90 << 10
	minPackages       = 8
)

//go:embed package.nix build.sh system.sh
var recipes embed.FS

// Write writes the sources and the expression of a closure into dir, which may
// hold what an earlier Write has put there. The file to build is
// dir/default.nix; its attribute "system" refers to everything, and each package
// is an attribute too.
func Write(dir string, cfg Config) error {
	if cfg.Packages < minPackages {
		return fmt.Errorf("rebuild: %d packages, want %d at least", cfg.Packages, minPackages)
	}
	cfg = cfg.complete()
	pkgs := plan(cfg)
	w := &writer{dir: dir}
	for _, name := range []string{"package.nix", "build.sh", "system.sh"} {
		text, err := recipes.ReadFile(name)
		if err != nil {
			return fmt.Errorf("rebuild: %w", err)
		}
		w.file(name, string(text))
	}
	w.file("default.nix", expression(pkgs, cfg))
	for _, p := range pkgs {
		w.source(p)
	}
	if w.err != nil {
		return fmt.Errorf("rebuild: %w", w.err)
	}
	return nil
}
