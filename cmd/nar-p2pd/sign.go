package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/nar-p2p/nar-p2p/internal/config"
	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// Records implements control.Signer.
func (n node) Records(ctx context.Context, paths []nix.StorePath) []control.Record {
	records := make([]control.Record, len(paths))
	keys, err := n.acceptedKeys()
	for i, path := range paths {
		if err == nil {
			records[i] = n.record(ctx, path, keys)
		} else {
			records[i].Err = err
		}
	}
	return records
}

func (n node) record(ctx context.Context, path nix.StorePath, accepted []narinfo.PublicKey) control.Record {
	info, err := n.store.Info(ctx, path.HashPart())
	if err == nil && info.Path != path {
		err = narstore.ErrNotFound
	}
	if err != nil {
		return control.Record{Err: err}
	}
	record := control.Record{Info: info.Narinfo()}
	record.Accepted = len(record.Info.SignedBy(accepted)) > 0
	if err := n.vouched.Check(ctx, info); err != nil {
		record.Refusal = err.Error()
	}
	return record
}

// acceptedKeys are those whose signature on a path peers may be expected to
// accept: those that this node trusts itself or shares for.
func (n node) acceptedKeys() ([]narinfo.PublicKey, error) {
	cfg := n.settings.current()
	texts := slices.Concat(cfg.Share.PublicKeys, cfg.Trust.PublicKeys)
	for _, u := range cfg.Upstreams {
		texts = append(texts, u.PublicKeys...)
	}
	return publicKeys(texts)
}

// Sign implements control.Signer. The catalogue and the announcer follow the
// store, and so what is signed.
func (n node) Sign(ctx context.Context, key narinfo.PublicKey, signatures []control.Signature) ([]control.Signed, string) {
	outcomes := make([]control.Signed, len(signatures))
	for i, s := range signatures {
		if err := n.vouched.Add(ctx, s.Path, key, s.Signature); err != nil {
			outcomes[i].Err = err
			continue
		}
		n.substituter.Present(s.Path.HashPart())
		outcomes[i].NotShared = n.notShared(ctx, s.Path)
	}
	return outcomes, n.sharingHint(key)
}

// notShared says why peers do not get a path, or returns nil.
func (n node) notShared(ctx context.Context, path nix.StorePath) error {
	if !n.serves() {
		return errSharesNothing(n.cfg.Profile)
	}
	return n.catalog.Explain(ctx, path)
}

func errSharesNothing(profile config.Profile) error {
	return fmt.Errorf("profile %s shares nothing", profile)
}

// sharingHint says which setting keeps what a key has signed from being shared,
// or "".
func (n node) sharingHint(key narinfo.PublicKey) string {
	switch {
	case !n.serves():
		return fmt.Sprintf("signed, but not shared: profile %s shares nothing", n.cfg.Profile)
	case slices.Contains(n.catalog.Policy().Keys, key):
		return ""
	case n.cfg.Network == config.PublicNetwork:
		return "signed, but not shared: the public network shares only what cache.nixos.org has signed; " +
			"set network to a name of your own, and add " + key.String() + " to share.public_keys"
	default:
		return "signed, but not shared: add " + key.String() + " to share.public_keys"
	}
}
