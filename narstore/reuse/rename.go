package reuse

import (
	"context"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// A fix that makes foo-1.1 of foo-1.0 changes the name in every path that mentions
// it, and no mask covers names. But a path's references say what they are called,
// before and after, and names of one length move nothing. So a chunk that is not
// found may be that at the same place of the best relative, with other names. It
// is tried out before anybody is asked for it.

// maxMisses is how many such guesses in a row may fail before no more are made:
// each costs some 0.2 ms.
const maxMisses = 8

// guesses are the attempts of one session at chunks with other names. They are
// for one goroutine, that which decides.
type guesses struct {
	// base is the relative.
	base member
	// old and fresh are the names of its references and of the path's own, by their
	// hash parts.
	old, fresh map[nix.HashPart]string
	// shift is how much further back the same bytes are in the relative.
	shift  int64
	misses int
	buffer []byte
}

// newGuesses returns nil where no reference has another name of the same length.
func (s *Session) newGuesses(ctx context.Context, base member) *guesses {
	info, err := s.index.store.Info(ctx, base.part)
	if err != nil {
		return nil
	}
	g := &guesses{base: base, old: make(map[nix.HashPart]string), fresh: make(map[nix.HashPart]string)}
	// There may be several of a family: those that follow each other are taken for
	// the same.
	byKind := make(map[[2]string][]string)
	for _, r := range append(info.References, info.Path) {
		g.old[r.HashPart()] = r.Name()
		kind := [2]string{familyOf(r.Name()), outputOf(r.Name())}
		byKind[kind] = append(byKind[kind], r.Name())
	}
	renamed := false
	for _, r := range append(s.want.References, s.want.Path) {
		g.fresh[r.HashPart()] = r.Name()
		for _, name := range byKind[[2]string{familyOf(r.Name()), outputOf(r.Name())}] {
			renamed = renamed || name != r.Name() && len(name) == len(r.Name())
		}
	}
	if !renamed {
		return nil
	}
	g.buffer = make([]byte, chunk.MaxLength)
	return g
}

// rename is a chunk.Rename.
func (g *guesses) rename(old, fresh nix.HashPart) (from, to string) {
	from, to = g.old[old], g.fresh[fresh]
	if from == to || len(from) != len(to) || familyOf(from) != familyOf(to) {
		return "", ""
	}
	return from, to
}

// Guess tries whether a chunk that Find does not know is there but for the names
// of paths, and returns its place or none. Chunks are to be given in order, those
// that were found too, with their places, and not by several goroutines.
func (s *Session) Guess(ctx context.Context, p Place, c *chunk.Chunk, parts []nix.HashPart) Place {
	if s.best.name == "" || len(s.want.References) == 0 || s.index.cfg.Plain {
		return p
	}
	if !s.guessing {
		s.guessing = true
		s.guesses = s.newGuesses(ctx, s.best)
	}
	g := s.guesses
	switch {
	case g == nil:
		return p
	case p.Found():
		if p.part == g.base.part {
			g.shift = p.offset - c.Offset
		}
		return p
	case !c.Masked, g.misses == maxMisses:
		return p
	}
	guess := Place{part: g.base.part, offset: c.Offset + g.shift, length: c.Length, named: true}
	if ok, _ := s.usable(guess); !ok || guess.offset < 0 {
		return p
	}
	if s.read(ctx, guess, c, parts, g.buffer[:c.Length]) != nil {
		g.misses++
		return p
	}
	g.misses = 0
	return guess
}

// read reads what a guess is about, and makes the chunk of it.
func (s *Session) read(ctx context.Context, p Place, c *chunk.Chunk, parts []nix.HashPart, b []byte) error {
	nar, err := s.open(ctx, p.part)
	if err != nil {
		return err
	}
	if n, err := nar.ReadAt(b, p.offset); n < len(b) {
		return err
	}
	return c.RestoreNamed(b, parts, s.guesses.rename)
}
