package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/nar"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/vouch"
)

// store is the node's store. Its files are in the script's folder "store", and
// its paths in variables:
//
//	$APP     built here, needs all of the following but $BROKEN
//	$DEP     built here
//	$CACHED  substituted, signed by a trusted key; needs a path that is not there
//	$FOREIGN not built here, signed by nobody
//	$RECIPE  a derivation
//	$BROKEN  built here, needs a path that is not there
//	$SECRET  built here, excluded from sharing
//	$ABSENT  not there
type store struct {
	*vouch.Store
	infos   map[nix.HashPart]*narstore.PathInfo
	trusted narinfo.PublicKey
}

// storeValue is the key of the store in a script's environment.
type storeValue struct{}

func newStore(env *testscript.Env) error {
	key, err := narinfo.GenerateSecretKey("cache-1")
	if err != nil {
		return err
	}
	s := &store{infos: make(map[nix.HashPart]*narstore.PathInfo), trusted: key.Public()}
	s.Store = vouch.New(memory{s}, &signatures{kept: make(map[string][]byte)}, zap.NewNop())
	dir := filepath.Join(env.WorkDir, "store")
	var errs []error
	add := func(variable, name string, references ...*narstore.PathInfo) *narstore.PathInfo {
		info, err := s.add(dir, name, references...)
		errs = append(errs, err)
		env.Setenv(variable, info.Path.String())
		return info
	}
	absent := add("ABSENT", "absent")
	delete(s.infos, absent.Path.HashPart())
	dep, secret, recipe := add("DEP", "dep"), add("SECRET", "secret"), add("RECIPE", "recipe.drv")
	cached, foreign := add("CACHED", "cached", absent), add("FOREIGN", "foreign")
	cached.Ultimate, foreign.Ultimate = false, false
	cached.Signatures = []narinfo.Signature{key.Sign(cached.Narinfo().Fingerprint())}
	add("APP", "app", dep, cached, foreign, recipe, secret)
	add("BROKEN", "broken", absent)
	env.Values[storeValue{}] = s
	return errors.Join(errs...)
}

// add makes a path with one file.
func (s *store) add(dir, name string, references ...*narstore.PathInfo) (*narstore.PathInfo, error) {
	sum := sha256.Sum256([]byte(name))
	path, err := nix.NewStorePath(nix.HashPart(sum[:20]), name)
	info := &narstore.PathInfo{Path: path, Ultimate: true}
	for _, r := range references {
		info.References = append(info.References, r.Path)
	}
	s.infos[path.HashPart()] = info
	file := filepath.Join(dir, path.BaseName())
	var b bytes.Buffer
	err = errors.Join(err, os.MkdirAll(dir, 0o755), os.WriteFile(file, []byte(name), 0o600), nar.Dump(&b, file))
	info.NARHash, info.NARSize = sha256.Sum256(b.Bytes()), int64(b.Len())
	return info, err
}

// memory is the store without own signatures.
type memory struct{ *store }

func (m memory) Info(_ context.Context, part nix.HashPart) (*narstore.PathInfo, error) {
	if info := m.infos[part]; info != nil {
		return info, nil
	}
	return nil, narstore.ErrNotFound
}

func (memory) Open(context.Context, *narstore.PathInfo) (narstore.NAR, error) {
	return nil, narstore.ErrNotFound
}

func (memory) Follow(ctx context.Context, _ func(narstore.Update) error) error {
	<-ctx.Done()
	return ctx.Err()
}

func (s *store) Records(ctx context.Context, paths []nix.StorePath) []control.Record {
	records := make([]control.Record, len(paths))
	for i, path := range paths {
		info, err := s.Info(ctx, path.HashPart())
		if err != nil {
			records[i].Err = err
			continue
		}
		record := info.Narinfo()
		records[i] = control.Record{Info: record, Accepted: len(record.SignedBy([]narinfo.PublicKey{s.trusted})) > 0}
		if err := s.Check(ctx, info); err != nil {
			records[i].Refusal = err.Error()
		}
	}
	return records
}

func (s *store) Sign(ctx context.Context, key narinfo.PublicKey, all []control.Signature) ([]control.Signed, string) {
	outcomes := make([]control.Signed, len(all))
	for i, sig := range all {
		if outcomes[i].Err = s.Add(ctx, sig.Path, key, sig.Signature); outcomes[i].Err == nil && sig.Path.Name() == "secret" {
			outcomes[i].NotShared = errors.New("its name is excluded")
		}
	}
	if key.Name == "stray-1" {
		return outcomes, "signed, but not shared: add the key to share.public_keys"
	}
	return outcomes, ""
}

// signatures is a bucket in memory.
type signatures struct {
	mu   sync.Mutex
	kept map[string][]byte
}

func (b *signatures) Get(key []byte) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if value, ok := b.kept[string(key)]; ok {
		return value, nil
	}
	return nil, narstore.ErrNotFound
}

func (b *signatures) Put(key, value []byte, _ time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept[string(key)] = bytes.Clone(value)
	return nil
}

func (*signatures) Delete([]byte) error { return nil }

func (*signatures) Each(context.Context, func(key, value []byte) error) error { return nil }
