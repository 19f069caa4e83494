package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/schollz/progressbar/v3"

	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/nar"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// maxClosure bounds the paths of one closure. No store has nearly as many.
const maxClosure = 1 << 20

// signer signs a closure. The walk comes first, and signatures are sent only
// once all of it is known to be sound; those of the paths that were asked for
// come last, so that peers do not find them before what they need.
type signer struct {
	client *control.Client
	key    narinfo.SecretKey
	store  string
	bar    *progressbar.ProgressBar

	asked map[nix.StorePath]struct{}
	// signatures are those to be kept, in the order of the walk.
	signatures []control.Signature
	results    []signedPath
	failed     int
	hint       string
}

// walk goes from paths along their references. It does not go on behind what
// this machine did not make and an accepted key has signed: whoever signed that
// has what it needs.
func (s *signer) walk(ctx context.Context, paths []nix.StorePath) error {
	queue := s.unasked(paths)
	for len(queue) > 0 {
		some := queue[:min(control.MaxRecords, len(queue))]
		queue = queue[len(some):]
		records, err := s.client.Records(ctx, some)
		if err != nil {
			return err
		}
		for i, record := range records {
			if errors.Is(record.Err, narstore.ErrNotFound) {
				return fmt.Errorf("%s: this node's store does not have it: %w", some[i], errNotFound)
			}
			if record.Err != nil {
				return fmt.Errorf("%s: %w", some[i], record.Err)
			}
			if err := s.take(ctx, &record); err != nil {
				return fmt.Errorf("%s: %w", some[i], err)
			}
			if record.Refusal == "" || !record.Accepted {
				queue = append(queue, s.unasked(record.Info.References)...)
			}
		}
		if err := s.bar.Add(len(some)); err != nil {
			return err
		}
		if len(s.asked) > maxClosure {
			return fmt.Errorf("more than %d paths are needed", maxClosure)
		}
	}
	return nil
}

// unasked returns those of paths that were not asked for yet, and notes them.
func (s *signer) unasked(paths []nix.StorePath) []nix.StorePath {
	var fresh []nix.StorePath
	for _, path := range paths {
		if _, ok := s.asked[path]; !ok {
			s.asked[path] = struct{}{}
			fresh = append(fresh, path)
		}
	}
	return fresh
}

// take signs a record, or notes why not.
func (s *signer) take(ctx context.Context, r *control.Record) error {
	path := r.Info.StorePath
	switch {
	case r.Refusal != "":
		s.results = append(s.results, signedPath{
			Path: path.String(), State: stateSkipped, Reason: r.Refusal, Unaccepted: !r.Accepted,
		})
		return nil
	case len(r.Info.SignedBy([]narinfo.PublicKey{s.key.Public()})) > 0:
		s.results = append(s.results, signedPath{Path: path.String(), State: stateAlready})
		return nil
	}
	// The daemon has peers, and so is not believed: it must not be able to have
	// a NAR hash of its own choice signed.
	if err := s.checkFiles(ctx, r.Info); err != nil {
		return err
	}
	s.signatures = append(s.signatures, control.Signature{Path: path, Signature: s.key.Sign(r.Info.Fingerprint())})
	return nil
}

// checkFiles compares a record with the files of its path.
func (s *signer) checkFiles(ctx context.Context, info *narinfo.Info) error {
	archive, err := nar.Open(ctx, filepath.Join(s.store, info.StorePath.BaseName()))
	if err != nil {
		return err
	}
	sum := sha256.New()
	from := io.NewSectionReader(archive, 0, archive.Size())
	_, err = io.Copy(sum, readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return from.Read(p)
	}))
	if err := errors.Join(err, archive.Close()); err != nil {
		return err
	}
	if got := nix.NARHash(sum.Sum(nil)); got != info.NARHash || archive.Size() != info.NARSize {
		return fmt.Errorf("%w: its files have the NAR hash %s and %d bytes, registered are %s and %d; nothing was signed",
			errCorrupt, got, archive.Size(), info.NARHash, info.NARSize)
	}
	return nil
}

// submit has the signatures kept.
func (s *signer) submit(ctx context.Context) error {
	slices.Reverse(s.signatures)
	results, hint, err := s.client.Sign(ctx, s.key.Public(), s.signatures)
	s.hint = hint
	for _, r := range results {
		one := signedPath{Path: r.Path, State: stateSigned, NotShared: r.NotShared}
		if r.Error != "" {
			one = signedPath{Path: r.Path, State: stateFailed, Reason: r.Error}
			s.failed++
		}
		s.results = append(s.results, one)
	}
	return err
}

// readerFunc is a reader by one function.
type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
