package reuse

import (
	"context"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
)

// Assessment says what of a NAR lies in the store, in bytes: as it is, or with
// other hash parts or names.
type Assessment struct {
	BySum, ByMaskedSum int64
}

// Assess finds out what of a NAR with this manifest lies in the store, by the
// index, and without reading more than what may have other names. It waits until
// relatives are indexed.
func (x *Index) Assess(ctx context.Context, want Want, m *chunk.Manifest) (Assessment, error) {
	s := x.Begin(ctx, want)
	defer s.Close()
	for _, t := range s.tasks {
		for {
			_, ended, grown := t.job.state()
			if ended {
				break
			}
			select {
			case <-grown:
			case <-ctx.Done():
				return Assessment{}, ctx.Err()
			}
		}
	}
	places := make([]Place, len(m.Chunks))
	s.Find(m.Chunks, places)
	var a Assessment
	for i := range places {
		switch p := s.Guess(ctx, places[i], &m.Chunks[i], m.HashParts); {
		case p.masked, p.named:
			a.ByMaskedSum += int64(m.Chunks[i].Length)
		case p.Found():
			a.BySum += int64(m.Chunks[i].Length)
		}
	}
	x.learned.know(want.Hash, float64(a.BySum+a.ByMaskedSum)/float64(want.Size))
	return a, nil
}
