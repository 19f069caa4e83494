// Package narstore is the node's view of what lies on the disk: store paths
// that are complete and valid, and their NARs as random-access bytes.
//
// A store is a Nix store (package nixdb) or a directory that is a binary cache
// (package dircache); both pass the conformance suite in package storetest.
// Nothing here decides what peers may see: that is package share.
package narstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// ErrNotFound says that a path is not, or no longer, valid in the store.
var ErrNotFound = errors.New("narstore: no such valid path")

// ErrChanged says that the files of a path, valid as it may be, are gone or are
// no longer those that were opened.
var ErrChanged = errors.New("narstore: files are gone or changed")

// BusyError says that there is no room for something now.
type BusyError struct {
	// RetryAfter is when there may be.
	RetryAfter time.Duration
}

// Error says when there may be room.
func (e *BusyError) Error() string { return fmt.Sprintf("no room, again in %s", e.RetryAfter) }

// PathInfo is what a store knows of one valid path.
type PathInfo struct {
	Path    nix.StorePath
	NARHash nix.NARHash
	// NARSize is in bytes and positive.
	NARSize    int64
	References []nix.StorePath
	// Deriver is zero where the store does not know it.
	Deriver    nix.StorePath
	Signatures []narinfo.Signature
	// CA is the content address, or "".
	CA string
	// Ultimate marks a path that this machine built itself.
	Ultimate bool
}

// Narinfo returns the record of the path in the form in which nodes give it to
// Nix and to each other: uncompressed, at a URL that names its own content.
func (p *PathInfo) Narinfo() *narinfo.Info {
	return &narinfo.Info{
		StorePath:   p.Path,
		URL:         narinfo.NARURL(p.Path.HashPart(), p.NARHash),
		Compression: "none",
		FileHash:    p.NARHash.String(),
		FileSize:    p.NARSize,
		NARHash:     p.NARHash,
		NARSize:     p.NARSize,
		References:  p.References,
		Deriver:     p.Deriver,
		Signatures:  p.Signatures,
		CA:          p.CA,
	}
}

// NAR is the archive of one store path, read in any order and from any number
// of goroutines. While it is open its path is protected from garbage
// collection as far as the store can; where files are lost all the same, reads of
// them are ErrChanged.
type NAR interface {
	io.ReaderAt
	io.Closer
	// Size is the archive's length in bytes.
	Size() int64
}

// Update tells of changes in a store since the Update before.
type Update struct {
	Added   []*PathInfo
	Removed []nix.HashPart
	// Settled is true from the Update on that completes the first listing.
	Settled bool
}

// Store is a set of valid paths. All methods are safe for concurrent use.
type Store interface {
	// Info returns what is known of the path with this hash part, or an error
	// that is ErrNotFound.
	Info(ctx context.Context, part nix.HashPart) (*PathInfo, error)
	// Open returns the NAR of a path that Info or Follow told of, or an error
	// that is ErrNotFound where it has gone.
	Open(ctx context.Context, info *PathInfo) (NAR, error)
	// Follow calls f with all paths, in batches, then with every change, until
	// ctx ends or f returns an error, which it returns. A path whose info
	// changed (a new signature) is told as Added again.
	Follow(ctx context.Context, f func(Update) error) error
}
