package host

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/crypto"
)

// maxIdentitySize bounds what is read of an identity file. An ed25519 key in
// libp2p's encoding takes 68 bytes.
const maxIdentitySize = 4 << 10

// LoadOrCreateIdentity returns the ed25519 key in the file at path, in libp2p's
// protobuf encoding, or makes one there, mode 0600. Whoever reads the key can
// pose as this node, so a file that others may read or write is refused, and so
// is a malformed one: a new identity must be the owner's decision.
func LoadOrCreateIdentity(path string) (crypto.PrivKey, error) {
	key, err := loadIdentity(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	key, _, err = crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	data, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	switch err := createFile(path, data); {
	case errors.Is(err, fs.ErrExist):
		// Another process was faster: its key is the identity.
		return loadIdentity(path)
	case err != nil:
		return nil, fmt.Errorf("identity: %w", err)
	}
	return key, nil
}

func loadIdentity(path string) (crypto.PrivKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("identity %s is not a regular file", path)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return nil, fmt.Errorf("identity %s has mode %#o, others can use it: chmod 600 it, or remove it to get a new peer id", path, perm)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxIdentitySize))
	if err != nil {
		return nil, fmt.Errorf("identity %s: %w", path, err)
	}
	key, err := crypto.UnmarshalPrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("identity %s is malformed (%v): restore it, or remove it to get a new peer id", path, err)
	}
	if key.Type() != crypto.Ed25519 {
		return nil, fmt.Errorf("identity %s is a %v key, want Ed25519", path, key.Type())
	}
	return key, nil
}

// createFile brings a file into being with all its bytes, or not at all. It
// does not replace one that is there.
func createFile(path string, data []byte) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, os.Remove(tmp.Name()))
	}()
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Link(tmp.Name(), path)
}
