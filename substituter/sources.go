package substituter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/nar-p2p/nar-p2p/internal/decompress"
	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/upstream"
	"github.com/nar-p2p/nar-p2p/substituter/verify"
)

// kind is a kind of source; kinds is a set of them.
type (
	kind  uint8
	kinds uint8
)

const (
	fromStore kind = iota
	fromPeers
	fromUpstream
	allKinds = iota // how many there are
)

func (k kind) String() string { return [...]string{"store", "peer", "upstream"}[k] }

func (s kinds) has(k kind) bool   { return s&(1<<k) != 0 }
func (s kinds) with(k kind) kinds { return s | 1<<k }

func (s kinds) without(k kind) kinds { return s &^ (1 << k) }

func (s kinds) strings() (names []string) {
	for k := range kind(allKinds) {
		if s.has(k) {
			names = append(names, k.String())
		}
	}
	return names
}

// blame is whom wrong bytes are blamed on: kinds of source, or, where it is known
// which one it was, upstreams by their addresses.
type blame struct {
	kinds     kinds
	upstreams []string
}

// has reports whether a source, which has a name if it is an upstream, is to
// blame.
func (b blame) has(k kind, name string) bool {
	return b.kinds.has(k) || name != "" && slices.Contains(b.upstreams, name)
}

func (b blame) with(other blame) blame {
	b.kinds |= other.kinds
	b.upstreams = slices.Clone(b.upstreams)
	for _, name := range other.upstreams {
		if !slices.Contains(b.upstreams, name) {
			b.upstreams = append(b.upstreams, name)
		}
	}
	return b
}

// strings are its parts for people.
func (b blame) strings() []string { return append(b.kinds.strings(), b.upstreams...) }

// source is one way to the bytes of a NAR.
type source interface {
	kind() kind
	// open returns the bytes that follow those in the digest, of which it may
	// make any use. They end when ctx does.
	open(ctx context.Context, digest *verify.Digest) (*stream, error)
}

// storeSource is the local store.
type storeSource struct {
	store narstore.Store
	rec   *record
	// other is told where the store has another NAR of the path.
	other func(*record, *narstore.PathInfo)
}

func (storeSource) kind() kind { return fromStore }

func (src storeSource) open(ctx context.Context, digest *verify.Digest) (*stream, error) {
	path, err := src.store.Info(ctx, src.rec.info.StorePath.HashPart())
	if err != nil {
		return nil, err
	}
	target := digest.Target()
	if path.NARHash != target.Hash {
		src.other(src.rec, path)
		return nil, narstore.ErrNotFound
	}
	nar, err := src.store.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	if nar.Size() != target.Size {
		err := fmt.Errorf("the NAR of %s has %d bytes, want %d", path.Path, nar.Size(), target.Size)
		return nil, errors.Join(err, nar.Close())
	}
	section := io.NewSectionReader(nar, digest.Offset(), target.Size-digest.Offset())
	return &stream{body: struct {
		io.Reader
		io.Closer
	}{section, nar}}, nil
}

// upstreamSource is one upstream.
type upstreamSource struct {
	m        *mirror
	deadline time.Duration // for a record
	rec      *record
}

func (upstreamSource) kind() kind { return fromUpstream }

// open asks for the NAR by the URL in the record, if the record is this
// upstream's. Else, or if there is nothing any more, it asks for the URL first.
func (src upstreamSource) open(ctx context.Context, digest *verify.Digest) (*stream, error) {
	known := src.m.String() == src.rec.upstream
	if known {
		st, err := src.at(ctx, src.rec.info, digest)
		if !errors.Is(err, upstream.ErrAbsent) {
			return st, err
		}
	}
	info, err := src.record(ctx, digest.Target())
	if err != nil {
		return nil, err
	}
	if known && info.URL == src.rec.info.URL {
		return nil, fmt.Errorf("%w: %s has a record without its NAR", upstream.ErrAbsent, src.m)
	}
	return src.at(ctx, info, digest)
}

// at asks for the NAR by the URL in info.
func (src upstreamSource) at(ctx context.Context, info *narinfo.Info, digest *verify.Digest) (*stream, error) {
	body, err := src.m.nar(ctx, info, digest.Offset())
	if err != nil {
		return nil, err
	}
	st := &stream{body: body}
	if info.Compression != decompress.None {
		st.again = digest.Offset()
	}
	return st, nil
}

// record asks the upstream where it has the NAR. Signatures do not matter here:
// what counts is the hash of the bytes.
func (src upstreamSource) record(ctx context.Context, target verify.Target) (*narinfo.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, src.deadline)
	defer cancel()
	info, err := src.m.narinfo(ctx, src.rec.info.StorePath.HashPart())
	if err != nil {
		return nil, err
	}
	if info.NARHash != target.Hash || info.NARSize != target.Size {
		return nil, fmt.Errorf("%s has another NAR of %s", src.m, info.StorePath)
	}
	return info, nil
}

// peerSource is the peers.
type peerSource struct {
	peers     Peers
	spool     *spool
	strangers bool
	hash      nix.NARHash
	path      nix.StorePath
	// references are those of the path.
	references []nix.StorePath
	// local is the share of the NAR that is expected to be in the local store.
	local float64
	// held says that no client gets anything before the whole is verified, lied that
	// wrong bytes have come from some: then nothing of theirs is used before either.
	held, lied bool
}

func (peerSource) kind() kind { return fromPeers }

// open starts a transfer. Bytes under a manifest that has not earned it are
// spooled until it has, or else until all are there and verified; a small NAR is
// held whole anyway.
func (src peerSource) open(ctx context.Context, digest *verify.Digest) (*stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	timer := time.AfterFunc(peerTime, cancel)
	defer timer.Stop()
	target := digest.Target()
	t, err := src.peers.Open(ctx, Want{
		Hash: target.Hash, Path: src.path, References: src.references, Size: target.Size, Offset: digest.Offset(), Strangers: src.strangers,
	})
	if err != nil {
		cancel()
		return nil, err
	}
	earned := func() bool { return !src.lied && t.Earned() }
	if src.held || earned() {
		return &stream{body: t, transfer: t, origins: origins{handed: t.Handed}, reuser: reuserOf(t), cancel: cancel}, nil
	}
	blameless := !digest.FromPeers()
	file, err := src.spool.fill(t, digest, earned)
	if err == nil && digest.Offset() < target.Size { // it has been earned
		return &stream{
			body: &spooledBody{file, t}, transfer: t, origins: origins{handed: t.Handed}, reuser: reuserOf(t), cancel: cancel,
		}, nil
	}
	defer cancel()
	defer t.Close()
	switch {
	case err == nil:
		t.Verdict(true)
		return &stream{body: file, sources: t.Sources(), origins: origins{queue: t.Handed()}, reuser: reuserOf(t)}, nil
	case errors.Is(err, verify.ErrMismatch) && blameless:
		t.Verdict(false)
	}
	lost := &spoolError{err: err}
	for _, source := range t.Sources() {
		lost.bytes += source.Bytes
	}
	return nil, lost
}

// spoolError is why nothing of a transfer could be used, of which so many bytes had come.
type spoolError struct {
	err   error
	bytes int64
}

func (e *spoolError) Error() string { return "spool: " + e.err.Error() }
func (e *spoolError) Unwrap() error { return e.err }

// reuserOf returns what says how much of a transfer was local, or nil.
func reuserOf(t Transfer) Reuser {
	r, _ := t.(Reuser)
	return r
}

// spooledBody is what was spooled, and then the rest.
type spooledBody struct {
	spooled io.ReadCloser
	rest    io.ReadCloser
}

func (b *spooledBody) Read(p []byte) (int, error) {
	n, err := b.spooled.Read(p)
	if n > 0 || len(p) == 0 {
		return n, nil
	}
	if !errors.Is(err, io.EOF) {
		return 0, err
	}
	return b.rest.Read(p)
}

// Close implements io.Closer.
func (b *spooledBody) Close() error { return errors.Join(b.spooled.Close(), b.rest.Close()) }
