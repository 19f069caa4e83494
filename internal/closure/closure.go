// Package closure makes closures of store paths without Nix, for tests and for
// the demo.
//
// The paths were never built: their hash parts are made up. But they are
// signed, and input-addressed as nearly all of nixpkgs is, so Nix takes them
// from any cache whose key it trusts. Their files mention the paths that they
// refer to in the ways of real packages, and no two seeds share a path.
package closure

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/nar-p2p/nar-p2p/narstore/nar"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// defaultMaxFileSize makes about half of the NARs larger than the smallest that
// have a manifest, and a closure of 30 paths 2 MB.
const defaultMaxFileSize = 64 << 10

// cacheInfo is what Nix wants to see in a directory that is a binary cache.
const cacheInfo = "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n"

// Config says what closure to make. The same one always makes the same bytes.
type Config struct {
	// Paths is the number of store paths, at least 1.
	Paths int
	// Seed decides on hash parts, references and contents.
	Seed uint64
	// Rebuild gives all paths other hash parts where it is another number, and
	// changes nothing else: as if something below all of them had been rebuilt.
	Rebuild uint64
	// Depth is how many paths the longest chain of references has, at least 2; 0
	// makes it grow with Paths. In nixpkgs a closure of 200 paths has chains of
	// 10 to 15.
	Depth int
	// Key signs every record.
	Key narinfo.SecretKey
	// MaxFileSize is the size of the largest binary in bytes; 0 means 64 KiB.
	MaxFileSize int
	// LargeSize is the size in bytes of one more file in the first path, or 0. It
	// cannot be compressed, unless LargeText makes it text, which zstd can to 38 %.
	LargeSize int64
	LargeText bool
	// Compression of the NARs: "none", "xz" or "zstd"; "" means "none".
	Compression string
}

// Closure is what was made. It is never empty.
type Closure struct {
	// Records are those of all paths, in topological order: references, but for
	// a path's own, stand before the path that has them.
	Records []*narinfo.Info
}

// Root returns the record of the path that refers to all others, directly or
// through them.
func (c *Closure) Root() *narinfo.Info { return c.Records[len(c.Records)-1] }

// Generate makes a closure and writes it to dir, which it creates if need be, as
// the binary cache that `nix copy --to file://<dir>` would make of it.
func Generate(ctx context.Context, dir string, cfg Config) (*Closure, error) {
	c, err := generate(ctx, dir, cfg)
	if err != nil {
		return nil, fmt.Errorf("closure: %w", err)
	}
	return c, nil
}

func generate(ctx context.Context, dir string, cfg Config) (*Closure, error) {
	if cfg.Paths < 1 || cfg.Depth < 0 || cfg.Depth == 1 || cfg.Depth > cfg.Paths {
		return nil, fmt.Errorf("%d paths, %d deep", cfg.Paths, cfg.Depth)
	}
	if cfg.MaxFileSize == 0 {
		cfg.MaxFileSize = defaultMaxFileSize
	}
	if err := os.MkdirAll(filepath.Join(dir, "nar"), 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "nix-cache-info"), []byte(cacheInfo), 0o644); err != nil {
		return nil, err
	}
	pkgs, err := plan(cfg)
	if err != nil {
		return nil, err
	}
	c := &Closure{}
	for _, p := range pkgs {
		info, err := p.publish(ctx, dir, cfg)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.path.BaseName(), err)
		}
		c.Records = append(c.Records, info)
	}
	return c, nil
}

// plan decides on the paths and on what refers to what.
func plan(cfg Config) ([]*pkg, error) {
	graph := random(cfg.Seed, "graph")
	pkgs := make([]*pkg, cfg.Paths)
	wanted := make([]bool, cfg.Paths)
	for i := range pkgs {
		name := fmt.Sprintf("%s-1.%d", names[i%len(names)], i)
		input := fmt.Appendf(nil, "hash part %d %s", cfg.Seed, name)
		if cfg.Rebuild > 0 {
			input = fmt.Appendf(input, " %d", cfg.Rebuild)
		}
		part := sha256.Sum256(input)
		path, err := nix.NewStorePath(nix.HashPart(part[:len(nix.HashPart{})]), name)
		if err != nil {
			return nil, err
		}
		p := &pkg{path: path, random: random(cfg.Seed, name), maxFileSize: cfg.MaxFileSize}
		pkgs[i] = p
		refers := make([]bool, i)
		for _, j := range cfg.references(i, graph) {
			refers[j], wanted[j] = true, true
		}
		for j := range refers {
			if refers[j] || i == cfg.Paths-1 && !wanted[j] {
				p.references = append(p.references, pkgs[j].path)
			}
		}
		p.self = i%3 == 2
		// Some real paths are a file, such as sources and scripts.
		p.isFile = i%7 == 5
	}
	pkgs[0].largeSize, pkgs[0].largeText = cfg.LargeSize, cfg.LargeText
	return pkgs, nil
}

// references picks those of path i among the paths before it.
func (cfg *Config) references(i int, graph *rand.Rand) (picked []int) {
	if cfg.Depth == 0 {
		// Mostly to recent ones, which makes the graph deep.
		for range min(i, 1+graph.IntN(4)) {
			picked = append(picked, max(i-1-graph.IntN(8), 0))
		}
		return picked
	}
	// The paths stand in layers, the last of which is the root alone. Each
	// refers to one path of the layer below, and to some of any layer below.
	begin := func(layer int) int { return (layer*(cfg.Paths-1) + cfg.Depth - 2) / (cfg.Depth - 1) }
	layer := 0
	for begin(layer+1) <= i && layer+1 < cfg.Depth {
		layer++
	}
	if layer == 0 {
		return nil
	}
	picked = []int{begin(layer-1) + graph.IntN(begin(layer)-begin(layer-1))}
	for range graph.IntN(8) {
		picked = append(picked, graph.IntN(begin(layer)))
	}
	return picked
}

// random returns the source of all that is decided about name.
func random(seed uint64, name string) *rand.Rand {
	return rand.New(rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "random %d %s", seed, name))))
}

// publish adds the package to the cache in dir.
func (p *pkg) publish(ctx context.Context, dir string, cfg Config) (*narinfo.Info, error) {
	temp, err := os.MkdirTemp("", "closure-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp)
	tree := filepath.Join(temp, "tree")
	if err := p.write(tree); err != nil {
		return nil, err
	}
	archive, err := nar.Open(ctx, tree)
	if err != nil {
		return nil, err
	}
	defer archive.Close()
	info := &narinfo.Info{StorePath: p.path, NARSize: archive.Size(), References: p.references}
	if p.self {
		info.References = append(info.References, p.path)
	}
	if err := store(info, archive, dir, cfg.Compression); err != nil {
		return nil, err
	}
	info.Signatures = []narinfo.Signature{cfg.Key.Sign(info.Fingerprint())}
	return info, os.WriteFile(filepath.Join(dir, p.path.HashPart().String()+".narinfo"), info.Bytes(), 0o644)
}

// store compresses archive into dir and fills info's fields about it.
func store(info *narinfo.Info, archive *nar.Archive, dir, compression string) error {
	f, err := os.CreateTemp(dir, "nar-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // Has gone where all went well.
	narHash, fileHash := sha256.New(), sha256.New()
	w, extension, err := compressor(io.MultiWriter(f, fileHash), compression)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	_, err = io.Copy(io.MultiWriter(narHash, w), io.NewSectionReader(archive, 0, archive.Size()))
	if err := errors.Join(err, w.Close()); err != nil {
		return errors.Join(err, f.Close())
	}
	stat, err := f.Stat()
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	info.NARHash = nix.NARHash(narHash.Sum(nil))
	file := nix.NARHash(fileHash.Sum(nil))
	info.FileHash, info.FileSize = file.String(), stat.Size()
	info.URL = "nar/" + file.Base32() + ".nar" + extension
	info.Compression = compression
	if compression == "" {
		info.Compression = "none"
	}
	return os.Rename(f.Name(), filepath.Join(dir, filepath.FromSlash(info.URL)))
}

// compressor returns a writer that compresses to w, and what the names of such
// files end with.
func compressor(w io.Writer, compression string) (io.WriteCloser, string, error) {
	switch compression {
	case "", "none":
		return nopCloser{w}, "", nil
	case "xz":
		x, err := xz.NewWriter(w)
		return x, ".xz", err
	case "zstd":
		z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
		return z, ".zst", err
	}
	return nil, "", fmt.Errorf("compression %q", compression)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// fill fills b with random bytes.
func fill(r *rand.Rand, b []byte) {
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, r.Uint64())
		b = b[8:]
	}
	for i := range b {
		b[i] = byte(r.Uint32())
	}
}
