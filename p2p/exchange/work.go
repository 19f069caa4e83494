package exchange

import (
	"time"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/work"
)

// What answers cost in processor time, about: it is charged before the work is
// done, and the same whether there is what was asked for or not. A record is read
// from SQLite and its signatures verified; a manifest takes the reading, hashing and
// cutting of its NAR; of a NAR that is opened every file is looked at.
const (
	workOfStream       = 100 * time.Microsecond
	workOfHash         = 3 * time.Microsecond
	workOfRecord       = 150 * time.Microsecond
	workOfSession      = 300 * time.Microsecond
	workOfOpening      = 2 * time.Millisecond
	workOfKeptManifest = time.Millisecond
	workOfChunk        = 10 * time.Microsecond
	// Nanoseconds for each byte.
	workOfManifestByte = 3
	workOfByte         = 1
)

// unknownSize is what a NAR counts as whose size the shelf does not tell, in bytes.
const unknownSize = 64 << 20

// sizer is a Shelf that tells the size of a NAR it holds, in bytes.
type sizer interface {
	Size(hash nix.NARHash) (size int64, held bool)
}

// charge charges work to who has a stream.
func (s *Server) charge(h holder, cost time.Duration) error {
	if wait := s.work.Charge(work.Who{Peer: h.peer, Group: h.group}, cost); wait > 0 {
		return &noRoomError{reason: refusedWork, retryAfter: wait}
	}
	return nil
}

// workOfManifest is what it takes to send the manifest of a NAR.
func (s *Server) workOfManifest(hash nix.NARHash) time.Duration {
	if _, kept, _ := s.shelf.Held(hash); kept {
		return workOfKeptManifest
	}
	size := int64(unknownSize)
	if sized, ok := s.shelf.(sizer); ok {
		size, _ = sized.Size(hash)
	}
	return workOfKeptManifest + time.Duration(size*workOfManifestByte)
}

// workOfRun is what it takes to send chunks.
func workOfRun(run span) time.Duration {
	return time.Duration(len(run.lengths))*workOfChunk + time.Duration((run.end()-run.offset)*workOfByte)
}
