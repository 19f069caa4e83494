package rebuild

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nar"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// Upgrade says what a machine that has an old closure has to fetch of a new one.
// All but Paths and Median are in bytes.
type Upgrade struct {
	// Paths is the number of NARs that are new, Median the size of their middle one.
	Paths  int
	Median int64
	// NARs are all that is new, of which ELF are in programs and libraries.
	NARs, ELF int64
	// BySum are in chunks that the old closure has as they are, ByMaskedSum in
	// others that it has but for hash parts, and Fetched in the rest.
	BySum, ByMaskedSum, Fetched int64
	// Manifests have to be fetched too.
	Manifests int64
	// Small are those of Fetched that are in NARs without a manifest.
	Small int64
	// OtherFiles are in files that the old closure does not have, OtherNARs in
	// NARs that it does not have.
	OtherFiles, OtherNARs int64
	// Each is the same for each NAR, in the order of the names.
	Each []Part
}

// Part is what an Upgrade says, for one store path.
type Part struct {
	Name                             string
	NAR, BySum, ByMaskedSum, Fetched int64
	Manifest                         int64
	implicit                         bool
	elf, otherFiles, otherNAR        int64
}

// Measure compares closures without a network: what chunks, masked chunks, files
// and NARs they have in common. A closure is a list of the store paths' real
// places.
func Measure(ctx context.Context, old, upgraded []string) (*Upgrade, error) {
	known := &contents{
		sums: make(map[chunk.Sum]bool), masked: make(map[chunk.Sum]bool),
		files: make(map[[sha256.Size]byte]bool), nars: make(map[nix.NARHash]bool),
	}
	there := make(map[string]bool)
	for _, path := range old {
		there[filepath.Base(path)] = true
		if err := known.add(ctx, path); err != nil {
			return nil, fmt.Errorf("rebuild: %s: %w", path, err)
		}
	}
	u := &Upgrade{}
	for _, path := range upgraded {
		if there[filepath.Base(path)] {
			continue
		}
		part, err := known.compare(ctx, path)
		if err != nil {
			return nil, fmt.Errorf("rebuild: %s: %w", path, err)
		}
		u.add(part)
	}
	slices.SortFunc(u.Each, func(a, b Part) int { return cmp.Compare(a.NAR, b.NAR) })
	if u.Paths > 0 {
		u.Median = u.Each[u.Paths/2].NAR
	}
	slices.SortFunc(u.Each, func(a, b Part) int { return cmp.Compare(a.Name, b.Name) })
	return u, nil
}

// String says it in one line.
func (u *Upgrade) String() string {
	percent := func(n int64) float64 { return 100 * float64(n) / float64(u.NARs) }
	return fmt.Sprintf("%d NARs of %d bytes, median %d, %.0f%% ELF: %.2f%% there by sum, %.2f%% by masked sum, %.2f%% to fetch (%.2f%% in small NARs) and %.2f%% of manifests",
		u.Paths, u.NARs, u.Median, percent(u.ELF), percent(u.BySum), percent(u.ByMaskedSum), percent(u.Fetched), percent(u.Small), percent(u.Manifests))
}

func (u *Upgrade) add(p Part) {
	u.Paths++
	u.NARs += p.NAR
	u.ELF += p.elf
	u.BySum += p.BySum
	u.ByMaskedSum += p.ByMaskedSum
	u.Fetched += p.Fetched
	u.Manifests += p.Manifest
	u.OtherFiles += p.otherFiles
	u.OtherNARs += p.otherNAR
	if p.implicit {
		u.Small += p.Fetched
	}
	u.Each = append(u.Each, p)
}

// contents are what there is in a closure.
type contents struct {
	sums, masked map[chunk.Sum]bool
	files        map[[sha256.Size]byte]bool
	nars         map[nix.NARHash]bool
}

func (c *contents) add(ctx context.Context, path string) error {
	m, _, err := manifest(ctx, path)
	if err != nil {
		return err
	}
	c.nars[m.NARHash] = true
	for _, piece := range m.Chunks {
		c.sums[piece.Sum] = true
		if piece.Masked {
			c.masked[piece.MaskedSum] = true
		}
	}
	return eachFile(path, func(data []byte) { c.files[sha256.Sum256(data)] = true })
}

func (c *contents) compare(ctx context.Context, path string) (Part, error) {
	p := Part{Name: filepath.Base(path)[len(nix.HashPart{}.String())+1:]}
	m, encoded, err := manifest(ctx, path)
	if err != nil {
		return p, err
	}
	p.NAR, p.Manifest, p.implicit = m.NARSize, int64(encoded), m.NARSize <= chunk.ImplicitSize
	for _, piece := range m.Chunks {
		switch n := int64(piece.Length); {
		case c.sums[piece.Sum]:
			p.BySum += n
		case piece.Masked && c.masked[piece.MaskedSum]:
			p.ByMaskedSum += n
		default:
			p.Fetched += n
		}
	}
	if !c.nars[m.NARHash] {
		p.otherNAR = p.NAR
	}
	return p, eachFile(path, func(data []byte) {
		if bytes.HasPrefix(data, []byte("\x7fELF")) {
			p.elf += int64(len(data))
		}
		if !c.files[sha256.Sum256(data)] {
			p.otherFiles += int64(len(data))
		}
	})
}

// manifest returns the one of a path's NAR, and the length of its encoding.
func manifest(ctx context.Context, path string) (m *chunk.Manifest, encoded int, err error) {
	archive, err := nar.Open(ctx, path)
	if err != nil {
		return nil, 0, err
	}
	defer archive.Close()
	whole := sha256.New()
	if _, err := io.Copy(whole, io.NewSectionReader(archive, 0, archive.Size())); err != nil {
		return nil, 0, err
	}
	m, err = chunk.Build(ctx, io.NewSectionReader(archive, 0, archive.Size()), nix.NARHash(whole.Sum(nil)), archive.Size(), func(piece []byte) error {
		encoded += len(piece)
		return nil
	})
	return m, encoded, err
}

// eachFile calls f with the contents of each regular file.
func eachFile(root string, f func(data []byte)) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err == nil {
			f(data)
		}
		return err
	})
}
