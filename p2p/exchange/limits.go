package exchange

import (
	"time"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
)

// Limits that are part of the protocols: both sides hold to them.
const (
	// MaxHashes is the number of NAR hashes in one have request.
	MaxHashes = 1024
	// MaxHashParts is the number of hash parts in one narinfo request.
	MaxHashParts = 256
	// MaxRunChunks is the number of chunks in one run.
	MaxRunChunks = 64
	// maxEncodings is the number of encodings that a client may offer.
	maxEncodings = 8
	// maxPiece is the longest piece of a manifest, in bytes.
	maxPiece = 64 << 10
)

// The longest messages in bytes, without the length before them. Each is what
// its bounded lists need at most, rounded up so that fields can be added.
const (
	maxHaveRequest     = 36 << 10 // 1,024 times 34
	maxHaveResponse    = 48 << 10 // 1,024 times 38
	maxNarinfoRequest  = 8 << 10  // 256 times 22
	maxNarinfoResponse = narinfo.MaxSize + 64
	maxNARRequest      = 1 << 10 // 64 lengths of 3 bytes, an offset
	maxNARResponse     = maxPiece + 1<<10
)

// Limits of this implementation.
const (
	// maxNarinfoBytes is what a server gives for one narinfo request, in bytes:
	// some thousand records of usual size.
	maxNarinfoBytes = 4 << 20
	// writeSize is how many bytes are gathered for one write. Smaller writes
	// cost throughput: at 4 KiB, 40 % of it.
	writeSize = 128 << 10
	// minPiece is how many bytes of a manifest are gathered for one piece, so
	// that one computed slowly does not travel entry by entry, and how many a
	// client expects within its stall timeout. They describe some 6 MiB of NAR.
	minPiece = 4 << 10
	// maxRetryAfter is the longest time for which a peer may put us off.
	maxRetryAfter = 5 * time.Minute
)
