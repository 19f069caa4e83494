// Package address checks the content of NARs against the content addresses of
// their store paths: nix-store's "fixed:" and "text:", as
// libstore/content-address.cc and libstore/references.cc define them.
package address

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash"
	"slices"

	"lukechampine.com/blake3"

	"github.com/nar-p2p/nar-p2p/narstore/nar"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// maxSelfReferences bounds the places where a path names itself, which are kept
// until the end: 3 MB of a NAR of 16 GiB, where they are furthest apart.
const maxSelfReferences = 1 << 20

// Check checks a NAR, from its first byte on, against the content address of
// its record. It takes memory for a few pieces at most, but for the places of
// references to itself.
type Check struct {
	sum  hash.Hash
	want []byte
	// hashed passes on to sum what the address is a hash of.
	hashed content
	ended  bool
	right  bool
}

// content takes a NAR in pieces and passes on what of it is hashed.
type content interface {
	write(p []byte, sum hash.Hash)
	// end reports whether the NAR is one that can have such an address, and want
	// is its hash.
	end(sum hash.Hash, want []byte) bool
}

// NewCheck returns the check of a record's content against its content address,
// of which it must be known that it yields the store path. Nothing but the
// path, its references and the address is read of the record. The error says
// that there is no such check.
func NewCheck(info *narinfo.Info) (*Check, error) {
	address, err := nix.ParseContentAddress(info.CA)
	if err != nil {
		return nil, fmt.Errorf("address: %w", err)
	}
	c := &Check{sum: newHash(address.Algorithm()), want: address.Hash()}
	switch address.Method() {
	case nix.Text, nix.Flat:
		c.hashed = newSingleFile()
	case nix.Recursive:
		c.hashed = whole{}
		if slices.Contains(info.References, info.StorePath) {
			c.hashed = &modulo{part: []byte(info.StorePath.HashPart().String())}
		}
	case nix.Git:
	}
	if c.sum == nil || c.hashed == nil {
		return nil, fmt.Errorf("address: %s: content addresses of this kind are not checked", address)
	}
	return c, nil
}

func newHash(algorithm string) hash.Hash {
	switch algorithm {
	case nix.MD5:
		return md5.New()
	case nix.SHA1:
		return sha1.New()
	case nix.SHA256:
		return sha256.New()
	case nix.SHA512:
		return sha512.New()
	case nix.BLAKE3:
		return blake3.New(sha256.Size, nil)
	}
	return nil
}

// Write adds the bytes that come next. It never fails.
func (c *Check) Write(p []byte) (int, error) {
	c.hashed.write(p, c.sum)
	return len(p), nil
}

// Matches reports whether the bytes, which are all, are what the address says.
func (c *Check) Matches() bool {
	if !c.ended {
		c.ended = true
		c.right = c.hashed.end(c.sum, c.want)
	}
	return c.right
}

// whole is the NAR as it is.
type whole struct{}

func (whole) write(p []byte, sum hash.Hash) { sum.Write(p) }

func (whole) end(sum hash.Hash, want []byte) bool { return bytes.Equal(sum.Sum(nil), want) }

// singleFile is the contents of a NAR's one file. It must be a regular file
// that is not executable: that is what Nix makes such paths of, and the address
// covers neither.
type singleFile struct {
	// before gathers what stands before the contents, head bytes long.
	before []byte
	head   int
	// left is how much of the contents is still to come, in bytes, and behind
	// what must then come.
	left   int64
	behind []byte
	wrong  bool
}

func newSingleFile() *singleFile {
	before, _ := nar.AroundFile(0)
	return &singleFile{head: len(before), before: make([]byte, 0, len(before))}
}

func (f *singleFile) write(p []byte, sum hash.Hash) {
	if n := min(f.head-len(f.before), len(p)); n > 0 {
		f.before = append(f.before, p[:n]...)
		p = p[n:]
		f.begin()
	}
	n := min(f.left, int64(len(p)))
	sum.Write(p[:n])
	f.left -= n
	if p = p[n:]; len(p) > 0 {
		f.wrong = f.wrong || !bytes.HasPrefix(f.behind, p)
		f.behind = f.behind[min(len(p), len(f.behind)):]
	}
}

// begin reads the length of the contents, with which all that stands around
// them is known.
func (f *singleFile) begin() {
	if len(f.before) < f.head {
		return
	}
	f.left = int64(binary.LittleEndian.Uint64(f.before[f.head-8:]))
	if f.left < 0 {
		f.left, f.wrong = 0, true
		return
	}
	before, behind := nar.AroundFile(f.left)
	f.wrong, f.behind = !bytes.Equal(f.before, before), behind
}

func (f *singleFile) end(sum hash.Hash, want []byte) bool {
	whole := len(f.before) == f.head && f.left == 0 && len(f.behind) == 0
	return whole && !f.wrong && bytes.Equal(sum.Sum(nil), want)
}

// modulo is the NAR with the path's own hash part blanked out, followed by the
// places where it stood (HashModuloSink in libstore/references.cc).
//
// Nix 2.17 to 2.34 left the places out by mistake, and each of the two kinds of
// Nix takes its own paths only. Both are right here: Nix has the last word. What
// is hashed in the one way ends with the end of an archive, and in the other
// with a number, so that none can be taken for one of the other kind.
type modulo struct {
	part []byte
	// tail is the end of what came, too short to hold the part; it begins at
	// offset, in bytes.
	tail   []byte
	offset int64
	// places holds the distance of each place to the one before, as varints.
	places  []byte
	n       int
	last    int64
	tooMany bool
}

func (m *modulo) write(p []byte, sum hash.Hash) {
	b := append(m.tail, p...)
	for from := 0; ; {
		i := bytes.Index(b[from:], m.part)
		if i < 0 {
			break
		}
		at := from + i
		from = at + len(m.part)
		clear(b[at:from])
		m.found(m.offset + int64(at))
	}
	hashed := max(len(b)-len(m.part)+1, 0)
	sum.Write(b[:hashed])
	m.offset += int64(hashed)
	m.tail = append(b[:0], b[hashed:]...)
}

func (m *modulo) found(place int64) {
	if m.n++; m.n > maxSelfReferences {
		m.tooMany = true
		return
	}
	m.places = binary.AppendUvarint(m.places, uint64(place-m.last))
	m.last = place
}

func (m *modulo) end(sum hash.Hash, want []byte) bool {
	_, closing := nar.AroundFile(0)
	if m.tooMany || !bytes.HasSuffix(m.tail, closing) {
		return false
	}
	sum.Write(m.tail)
	if bytes.Equal(sum.Sum(nil), want) {
		return true
	}
	place := uint64(0)
	for rest := m.places; len(rest) > 0; {
		distance, n := binary.Uvarint(rest)
		rest = rest[n:]
		place += distance
		fmt.Fprintf(sum, "|%d", place)
	}
	return bytes.Equal(sum.Sum(nil), want)
}
