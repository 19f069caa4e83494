// Package vouch adds signatures of the machine's owner to the paths of a
// store.
//
// Nix signs what it builds with at most one key, and in its own database. Here
// an owner vouches for what this machine has built without either: the
// signatures are made elsewhere, are checked against the path's record, and are
// kept in the node's state. Store is a narstore.Store that tells of them as if
// they had come with the path, so that whatever reads the store, be it to share
// or to answer Nix, sees them.
//
// Only what this machine knows for itself may be signed, see Store.Check: a
// signature on what was merely downloaded would be hearsay.
package vouch

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

const (
	// maxSignatures bounds the signatures kept of one path. The oldest goes:
	// it is that of a key long replaced.
	maxSignatures = 16
	// maxKeyName is the longest name of a key in bytes. Nix sets no limit.
	maxKeyName = 200
)

// bucket keeps small values on the disk; it is *state.Bucket. An error of Get
// means that there is no value.
type bucket interface {
	Get(key []byte) ([]byte, error)
	Put(key, value []byte, ttl time.Duration) error
	Delete(key []byte) error
	Each(ctx context.Context, f func(key, value []byte) error) error
}

// Store is a store with own signatures. Its methods are safe for concurrent
// use.
type Store struct {
	store  narstore.Store
	bucket bucket
	log    *zap.Logger

	// changing is held while an entry of the bucket is replaced.
	changing sync.Mutex

	mu        sync.Mutex
	followers map[*follower]struct{}
}

var _ narstore.Store = (*Store)(nil)

// New returns store with the signatures that are kept in own.
func New(store narstore.Store, own bucket, log *zap.Logger) *Store {
	return &Store{store: store, bucket: own, log: log.Named("vouch"), followers: make(map[*follower]struct{})}
}

// entry is what the bucket holds of one path, by its hash part.
type entry struct {
	// Fingerprint is the sha-256 of what was signed. Of a path that was built
	// again, with another result, the signatures say nothing.
	Fingerprint []byte `json:"fingerprint"`
	// Signatures are in the order in which they came.
	Signatures []string `json:"signatures"`
	// Absent is when the path was first missed, and Overdue when that was first found to
	// be too long ago, see Run.
	Absent  time.Time `json:"absent,omitzero"`
	Overdue time.Time `json:"overdue,omitzero"`
}

func digest(info *narstore.PathInfo) []byte {
	sum := sha256.Sum256([]byte(info.Narinfo().Fingerprint()))
	return sum[:]
}

// read returns the entry of a hash part, or nil.
func (s *Store) read(part nix.HashPart) *entry {
	data, err := s.bucket.Get(part[:])
	if err != nil {
		return nil
	}
	return s.parse(part, data)
}

func (s *Store) parse(part nix.HashPart, data []byte) *entry {
	e := &entry{}
	if err := json.Unmarshal(data, e); err != nil {
		s.log.Debug("kept signatures are of no use", zap.Stringer("hashPart", part), zap.Error(err))
		return nil
	}
	return e
}

func (s *Store) write(part nix.HashPart, e *entry) error {
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return s.bucket.Put(part[:], data, 0)
}

// Info implements narstore.Store.
func (s *Store) Info(ctx context.Context, part nix.HashPart) (*narstore.PathInfo, error) {
	info, err := s.store.Info(ctx, part)
	if err != nil {
		return nil, err
	}
	return s.withOwn(info), nil
}

// Open implements narstore.Store.
func (s *Store) Open(ctx context.Context, info *narstore.PathInfo) (narstore.NAR, error) {
	return s.store.Open(ctx, info)
}

// withOwn returns info with the signatures that are kept of it.
func (s *Store) withOwn(info *narstore.PathInfo) *narstore.PathInfo {
	e := s.read(info.Path.HashPart())
	if e == nil || !slices.Equal(e.Fingerprint, digest(info)) {
		return info
	}
	with := *info
	with.Signatures = slices.Clone(info.Signatures)
	for _, text := range e.Signatures {
		sig, err := narinfo.ParseSignature(text)
		if err == nil && !slices.Contains(with.Signatures, sig) {
			with.Signatures = append(with.Signatures, sig)
		}
	}
	return &with
}

// Add keeps a signature of a path as it is in the store now. An error says why
// not: one that is narstore.ErrNotFound where there is no such path, and one
// that says which rule of Check, or which part of the signature, is against it.
func (s *Store) Add(ctx context.Context, path nix.StorePath, key narinfo.PublicKey, sig narinfo.Signature) error {
	if err := s.add(ctx, path, key, sig); err != nil {
		return fmt.Errorf("vouch: %s: %w", path, err)
	}
	s.tell(path.HashPart())
	return nil
}

func (s *Store) add(ctx context.Context, path nix.StorePath, key narinfo.PublicKey, sig narinfo.Signature) error {
	if len(key.Name) > maxKeyName {
		return fmt.Errorf("the key's name is longer than %d bytes", maxKeyName)
	}
	info, err := s.store.Info(ctx, path.HashPart())
	if err == nil && info.Path != path {
		err = narstore.ErrNotFound
	}
	if err != nil {
		return err
	}
	if err := s.Check(ctx, info); err != nil {
		return err
	}
	if !key.Verify(info.Narinfo().Fingerprint(), sig) {
		return errors.New("the signature is not one of its record by the key")
	}
	return s.keep(info, sig)
}

func (s *Store) keep(info *narstore.PathInfo, sig narinfo.Signature) error {
	part, fingerprint := info.Path.HashPart(), digest(info)
	s.changing.Lock()
	defer s.changing.Unlock()
	e := s.read(part)
	if e == nil || !slices.Equal(e.Fingerprint, fingerprint) {
		e = &entry{Fingerprint: fingerprint}
	}
	text := sig.String()
	e.Absent = time.Time{}
	e.Signatures = append(slices.DeleteFunc(e.Signatures, func(old string) bool { return old == text }), text)
	e.Signatures = e.Signatures[max(0, len(e.Signatures)-maxSignatures):]
	return s.write(part, e)
}
