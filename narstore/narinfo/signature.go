package narinfo

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// Fingerprint returns the text that signatures are made over:
//
//	1;<store path>;sha256:<base-32 NAR hash>;<NAR size>;<sorted, comma-joined full reference paths>
//
// (libstore/path-info.cc).
func (i *Info) Fingerprint() string {
	refs := slices.SortedFunc(slices.Values(i.References), nix.StorePath.Compare)
	refs = slices.Compact(refs)
	names := make([]string, len(refs))
	for j, ref := range refs {
		names[j] = ref.String()
	}
	return fmt.Sprintf("1;%s;%s;%d;%s", i.StorePath, i.NARHash, i.NARSize, strings.Join(names, ","))
}

// Signature is one key's word on a fingerprint.
type Signature struct {
	// KeyName is the name that the signer gave its key. It proves nothing.
	KeyName string
	// Data is the ed25519 signature.
	Data [ed25519.SignatureSize]byte
}

// ParseSignature parses "<key name>:<base-64>".
func ParseSignature(s string) (Signature, error) {
	sig := Signature{}
	name, data, err := splitKey(s, len(sig.Data))
	if err != nil {
		return Signature{}, fmt.Errorf("narinfo: signature %.100q: %w", s, err)
	}
	sig.KeyName = name
	copy(sig.Data[:], data)
	return sig, nil
}

// String returns "<key name>:<base-64>".
func (s Signature) String() string {
	return s.KeyName + ":" + base64.StdEncoding.EncodeToString(s.Data[:])
}

// splitKey splits "<name>:<base-64 of size bytes>", the form of Nix's keys and
// signatures.
func splitKey(s string, size int) (name string, data []byte, err error) {
	name, text, ok := strings.Cut(s, ":")
	if !ok || name == "" {
		return "", nil, errors.New("no key name")
	}
	// Records and databases separate signatures by blanks and line ends.
	if strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' }) {
		return "", nil, errors.New("blank or control character in the key name")
	}
	data, err = base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return "", nil, err
	}
	if len(data) != size {
		return "", nil, fmt.Errorf("%d bytes, want %d", len(data), size)
	}
	return name, data, nil
}

// PublicKey verifies signatures. It is comparable.
type PublicKey struct {
	Name string
	key  [ed25519.PublicKeySize]byte
}

// ParsePublicKey parses "<name>:<base-64>", as in Nix's trusted-public-keys.
func ParsePublicKey(s string) (PublicKey, error) {
	k := PublicKey{}
	name, data, err := splitKey(s, len(k.key))
	if err != nil {
		return PublicKey{}, fmt.Errorf("narinfo: public key %.100q: %w", s, err)
	}
	k.Name = name
	copy(k.key[:], data)
	return k, nil
}

// String returns "<name>:<base-64>".
func (k PublicKey) String() string {
	return k.Name + ":" + base64.StdEncoding.EncodeToString(k.key[:])
}

// Verify reports whether sig is k's signature of fingerprint. The names must
// match too, since Nix looks keys up by name.
func (k PublicKey) Verify(fingerprint string, sig Signature) bool {
	return k.Name == sig.KeyName && ed25519.Verify(k.key[:], []byte(fingerprint), sig.Data[:])
}

// SecretKey signs fingerprints.
type SecretKey struct {
	Name string
	key  ed25519.PrivateKey
}

// ParseSecretKey parses "<name>:<base-64>", as `nix-store
// --generate-binary-cache-key` writes it. Errors do not repeat the key.
func ParseSecretKey(s string) (SecretKey, error) {
	name, data, err := splitKey(strings.TrimSpace(s), ed25519.PrivateKeySize)
	if err != nil {
		return SecretKey{}, fmt.Errorf("narinfo: secret key: %w", err)
	}
	return SecretKey{Name: name, key: data}, nil
}

// GenerateSecretKey makes a new key from the system's randomness.
func GenerateSecretKey(name string) (SecretKey, error) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return SecretKey{}, fmt.Errorf("narinfo: generate key: %w", err)
	}
	return SecretKey{Name: name, key: key}, nil
}

// Public returns the key that verifies what k signs.
func (k SecretKey) Public() PublicKey {
	p := PublicKey{Name: k.Name}
	copy(p.key[:], k.key[ed25519.SeedSize:])
	return p
}

// Text returns "<name>:<base-64>", the form of Nix's secret key files. There
// is no String method, so that no log prints a key by accident.
func (k SecretKey) Text() string {
	return k.Name + ":" + base64.StdEncoding.EncodeToString(k.key)
}

// Sign returns k's signature of fingerprint.
func (k SecretKey) Sign(fingerprint string) Signature {
	s := Signature{KeyName: k.Name}
	copy(s.Data[:], ed25519.Sign(k.key, []byte(fingerprint)))
	return s
}

// SignedBy returns the different keys among keys that have validly signed the
// record. The same key under two names counts once, and a bad signature never
// hides a good one of the same key.
func (i *Info) SignedBy(keys []PublicKey) []PublicKey {
	fingerprint := i.Fingerprint()
	var signers []PublicKey
	for _, k := range keys {
		if slices.ContainsFunc(signers, func(s PublicKey) bool { return s.key == k.key }) {
			continue
		}
		if slices.ContainsFunc(i.Signatures, func(s Signature) bool { return k.Verify(fingerprint, s) }) {
			signers = append(signers, k)
		}
	}
	return signers
}

// ValidSignatures returns the signatures that one of keys verifies, each once,
// in the order of the record.
func (i *Info) ValidSignatures(keys []PublicKey) []Signature {
	fingerprint := i.Fingerprint()
	var valid []Signature
	for _, s := range i.Signatures {
		if slices.Contains(valid, s) {
			continue
		}
		if slices.ContainsFunc(keys, func(k PublicKey) bool { return k.Verify(fingerprint, s) }) {
			valid = append(valid, s)
		}
	}
	return valid
}
