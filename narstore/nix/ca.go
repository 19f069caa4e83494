package nix

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
)

// Method says what the hash in a content address is of.
type Method string

// The methods, as content addresses begin.
const (
	// Text is of the contents of a single file that may refer to other paths.
	Text Method = "text:"
	// Flat is of the contents of a single file.
	Flat Method = "fixed:"
	// Recursive is of the NAR; where the path refers to itself, of the NAR with
	// those references blanked out.
	Recursive Method = "fixed:r:"
	// Git is of a git tree.
	Git Method = "fixed:git:"
)

// The names of the hashes in content addresses.
const (
	MD5    = "md5"
	SHA1   = "sha1"
	SHA256 = "sha256"
	SHA512 = "sha512"
	BLAKE3 = "blake3"
)

// ContentAddress is the claim that a store path is named after its content
// (libstore/content-address.cc). It is comparable.
type ContentAddress struct {
	method Method
	// algorithm is the name of the hash, and hash its bytes.
	algorithm, hash string
}

// hashSizes holds the size in bytes of every hash that Nix knows.
var hashSizes = map[string]int{MD5: 16, SHA1: 20, SHA256: 32, SHA512: 64, BLAKE3: 32}

// ParseContentAddress parses "<method>:<algorithm>:<hash>", as narinfos have
// it: for example "fixed:r:sha256:<base-32>". The hash may be in hexadecimal or
// base-64 too.
func ParseContentAddress(s string) (ContentAddress, error) {
	for _, method := range []Method{Text, Recursive, Git, Flat} {
		rest, ok := strings.CutPrefix(s, string(method))
		if !ok {
			continue
		}
		algorithm, text, _ := strings.Cut(rest, ":")
		size, ok := hashSizes[algorithm]
		if !ok {
			return ContentAddress{}, fmt.Errorf("nix: content address %.200q: unknown hash", s)
		}
		hash := make([]byte, size)
		if err := decodeHash(hash, text); err != nil {
			return ContentAddress{}, fmt.Errorf("nix: content address %.200q: %w", s, err)
		}
		return ContentAddress{method: method, algorithm: algorithm, hash: string(hash)}, nil
	}
	return ContentAddress{}, fmt.Errorf("nix: content address %.200q: unknown method", s)
}

// Method returns what the hash is of.
func (c ContentAddress) Method() Method { return c.method }

// Algorithm returns the name of the hash.
func (c ContentAddress) Algorithm() string { return c.algorithm }

// Hash returns the bytes of the hash.
func (c ContentAddress) Hash() []byte { return []byte(c.hash) }

// String returns the address with its hash in base-32, as Nix writes it.
func (c ContentAddress) String() string {
	return string(c.method) + c.algorithm + ":" + EncodeBase32(c.Hash())
}

// NARHash returns the NAR hash that the address claims, if it does: it must be
// one of the whole NAR, by sha-256. Where the path refers to itself the claim
// is about a NAR with those references blanked out instead.
func (c ContentAddress) NARHash() (NARHash, bool) {
	if c.method != Recursive || c.algorithm != SHA256 {
		return NARHash{}, false
	}
	return NARHash([]byte(c.hash)), true
}

// Yields reports whether the content address, together with the name and the
// references, results in exactly this store path (makeFixedOutputPath and
// makeTextPath in libstore/store-dir-config.cc).
func (c ContentAddress) Yields(path StorePath, references []StorePath) bool {
	others := slices.SortedFunc(slices.Values(references), StorePath.Compare)
	others = slices.DeleteFunc(slices.Compact(others), func(p StorePath) bool { return p == path })
	toItself := slices.Contains(references, path)

	kind, hash := "source", c.hash
	switch _, isNARHash := c.NARHash(); {
	case isNARHash:
	case c.method == Text:
		if c.algorithm != SHA256 || toItself {
			return false
		}
		kind = "text"
	default:
		if len(references) > 0 || c.method == Git && c.algorithm != SHA1 && c.algorithm != SHA256 {
			return false
		}
		prefix := "fixed:out:" + strings.TrimPrefix(string(c.method), "fixed:")
		sum := sha256.Sum256(fmt.Appendf(nil, "%s%s:%x:", prefix, c.algorithm, c.hash))
		kind, hash = "output:out", string(sum[:])
	}
	for _, other := range others {
		kind += ":" + other.String()
	}
	if toItself {
		kind += ":self"
	}
	return path.hash == makeHashPart(kind, hash, path.name)
}

// makeHashPart computes the hash part of a path from what fixes its content
// (makeStorePath in libstore/store-dir-config.cc).
func makeHashPart(kind, hash, name string) HashPart {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s:sha256:%x:%s:%s", kind, hash, StoreDir, name))
	var part HashPart
	for i, b := range sum {
		part[i%len(part)] ^= b
	}
	return part
}
