package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/config"
	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/dircache"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/nixdb"
	"github.com/nar-p2p/nar-p2p/narstore/share"
)

// store is what the node serves from.
type store struct {
	narstore.Store
	io.Closer
	// kind is config.StoreNix, StoreCache or StoreNone.
	kind string
	// location is the Nix store's root or the cache's directory.
	location string
}

// problem is why the store cannot be read at present, where it tells.
func (s store) problem() error {
	if told, ok := s.Closer.(interface{ Problem() error }); ok {
		return told.Problem()
	}
	return nil
}

// openStore opens the store that the settings name, or the one that is there.
func openStore(cfg *config.Config, log *zap.Logger) (store, error) {
	switch {
	case cfg.Store.Kind == config.StoreNone:
		log.Info("no store: running as fetcher and proxy")
		return noStore(), nil
	case cfg.Store.Cache != "":
		return openCache(cfg, log)
	default:
		return openNixStore(&cfg.Store, log)
	}
}

func openCache(cfg *config.Config, log *zap.Logger) (store, error) {
	scratch, err := makeDir(cfg.StateDir, "scratch")
	if err != nil {
		return store{}, err
	}
	s, err := dircache.Open(dircache.Config{Dir: cfg.Store.Cache, ScratchDir: scratch}, log)
	if err != nil {
		return store{}, storeError{fmt.Errorf("store.cache: %w", err)}
	}
	return store{Store: s, Closer: s, kind: config.StoreCache, location: cfg.Store.Cache}, nil
}

func openNixStore(cfg *config.Store, log *zap.Logger) (store, error) {
	root := cmp.Or(cfg.Root, "/")
	// A database that may not be looked at is there all the same.
	database := nixDatabase(cfg)
	if _, err := os.Stat(database); errors.Is(err, fs.ErrNotExist) && cfg.Kind == config.StoreAuto {
		log.Info("no Nix store: running as fetcher and proxy", zap.String("root", root), zap.String("missing", database))
		return noStore(), nil
	}
	s, err := nixdb.Open(nixdb.Config{
		Root: cfg.Root, RealStoreDir: cfg.RealDir, StateDir: cfg.NixStateDir, DaemonSocket: cfg.DaemonSocket,
	}, log)
	if err != nil {
		return store{}, storeError{fmt.Errorf("store.root: %w", err)}
	}
	return store{Store: s, Closer: s, kind: config.StoreNix, location: root}, nil
}

// nixDatabase is where the database of a Nix store is to be.
func nixDatabase(cfg *config.Store) string {
	stateDir := cmp.Or(cfg.NixStateDir, filepath.Join(cmp.Or(cfg.Root, "/"), "nix/var/nix"))
	return filepath.Join(stateDir, "db/db.sqlite")
}

func noStore() store { return store{Store: empty{}, Closer: empty{}, kind: config.StoreNone} }

// empty is a store without paths.
type empty struct{}

var _ narstore.Store = empty{}

func (empty) Info(context.Context, nix.HashPart) (*narstore.PathInfo, error) {
	return nil, narstore.ErrNotFound
}

func (empty) Open(context.Context, *narstore.PathInfo) (narstore.NAR, error) {
	return nil, narstore.ErrNotFound
}

func (empty) Follow(ctx context.Context, f func(narstore.Update) error) error {
	if err := f(narstore.Update{Settled: true}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

func (empty) Close() error { return nil }

func newPolicy(cfg *config.Share) (*share.Policy, error) {
	keys, err := publicKeys(cfg.PublicKeys)
	if err != nil {
		return nil, fmt.Errorf("share.public_keys: %w", err)
	}
	policy := &share.Policy{Keys: keys, Exclude: cfg.Exclude, MaxNARSize: cfg.MaxNARSize}
	return policy, policy.Validate()
}

func publicKeys(texts []string) ([]narinfo.PublicKey, error) {
	keys := make([]narinfo.PublicKey, len(texts))
	for i, text := range texts {
		key, err := narinfo.ParsePublicKey(text)
		if err != nil {
			return nil, err
		}
		keys[i] = key
	}
	return keys, nil
}

// makeDir makes a directory for the daemon alone.
func makeDir(parent, name string) (string, error) {
	dir := filepath.Join(parent, name)
	return dir, os.MkdirAll(dir, 0o700)
}
