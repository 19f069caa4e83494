// Package invitation writes what a node must know to join a private network as
// one word, to be sent by mail and pasted into a terminal.
//
// The word is "narp2p1", for version 1, and in base-32 (RFC 4648, lower case, no
// padding) the bytes of
//
//	name       its length as a varint, and its characters
//	bootstrap  the number of addresses as a varint; of each the length as a
//	           varint, and the multiaddr with the peer ID, in binary form
//	key        0, or 1 and the 32 bytes of the pre-shared key
//	checksum   the first 4 bytes of the sha-256 of "narp2p1" and the above
//
// An invitation with a key is a secret: it is all that the network asks for.
package invitation

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/nar-p2p/nar-p2p/internal/config"
)

const (
	prefix   = "narp2p"
	version1 = prefix + "1"
	checksum = 4

	// KeySize is the size of a pre-shared key in bytes.
	KeySize = 32
	// MaxBootstrap bounds the addresses: four nodes with four each.
	MaxBootstrap = 16
	// maxAddr is the longest address and maxName the longest name, in bytes.
	maxAddr = 256
	maxName = 64
	// maxWord has room for all of that, in characters.
	maxWord = 8 << 10
)

var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Invitation is what a node must know.
type Invitation struct {
	// Network is the network's name.
	Network string
	// Bootstrap holds addresses that end in /p2p/<peer ID>, at most MaxBootstrap.
	Bootstrap []ma.Multiaddr
	// Key is the pre-shared key, or nil.
	Key []byte
}

// Secret reports whether the invitation must be kept from others.
func (i *Invitation) Secret() bool { return i.Key != nil }

// Check reports what is wrong with an invitation that was put together.
func (i *Invitation) Check() error {
	if err := config.CheckPrivateNetwork(i.Network); err != nil {
		return fmt.Errorf("network %.80q: %w", i.Network, err)
	}
	if len(i.Bootstrap) > MaxBootstrap {
		return fmt.Errorf("%d bootstrap addresses are more than %d", len(i.Bootstrap), MaxBootstrap)
	}
	for _, addr := range i.Bootstrap {
		if _, last := ma.SplitLast(addr); last == nil || last.Protocol().Code != ma.P_P2P || len(addr) < 2 {
			return fmt.Errorf("bootstrap address %.80v does not end in /p2p/<peer ID>", addr)
		}
		if len(addr.Bytes()) > maxAddr {
			return fmt.Errorf("bootstrap address %.80v… has more than %d bytes", addr, maxAddr)
		}
	}
	if i.Key != nil && len(i.Key) != KeySize {
		return fmt.Errorf("a key of %d bytes, want %d", len(i.Key), KeySize)
	}
	return nil
}

// String writes the invitation as a word. It must pass Check.
func (i *Invitation) String() string {
	var b []byte
	b = append(binary.AppendUvarint(b, uint64(len(i.Network))), i.Network...)
	b = binary.AppendUvarint(b, uint64(len(i.Bootstrap)))
	for _, addr := range i.Bootstrap {
		b = append(binary.AppendUvarint(b, uint64(len(addr.Bytes()))), addr.Bytes()...)
	}
	if i.Key == nil {
		b = append(b, 0)
	} else {
		b = append(append(b, 1), i.Key...)
	}
	return version1 + encoding.EncodeToString(append(b, sum(b)...))
}

func sum(payload []byte) []byte {
	all := sha256.Sum256(append([]byte(version1), payload...))
	return all[:checksum]
}

var (
	errNone    = errors.New("is no invitation, which would begin with " + version1)
	errVersion = errors.New("is an invitation of a later version: a newer p2pctl is needed")
	errDamaged = errors.New("is damaged: its checksum does not match; was it copied in full?")
)

// Parse reads the word that String has written. Its errors do not contain it.
func Parse(word string) (*Invitation, error) {
	word = strings.TrimSpace(word)
	if len(word) > maxWord || !strings.HasPrefix(word, prefix) {
		return nil, errNone
	}
	text, ok := strings.CutPrefix(word, version1)
	if !ok {
		return nil, errVersion
	}
	b, err := encoding.DecodeString(text)
	if err != nil || len(b) < checksum || encoding.EncodeToString(b) != text {
		return nil, errDamaged
	}
	payload := b[:len(b)-checksum]
	if !bytes.Equal(sum(payload), b[len(payload):]) {
		return nil, errDamaged
	}
	i, err := decode(payload)
	if err == nil {
		err = i.Check()
	}
	if err != nil {
		return nil, fmt.Errorf("is malformed: %w", err)
	}
	return i, nil
}

// decode reads what the checksum covers.
func decode(b []byte) (*Invitation, error) {
	r := reader{b}
	name, err := r.bytes(maxName)
	if err != nil {
		return nil, fmt.Errorf("name: %w", err)
	}
	i := &Invitation{Network: string(name)}
	n, err := r.number(MaxBootstrap)
	if err != nil {
		return nil, fmt.Errorf("bootstrap addresses: %w", err)
	}
	for range n {
		text, err := r.bytes(maxAddr)
		if err != nil {
			return nil, fmt.Errorf("bootstrap address: %w", err)
		}
		addr, err := ma.NewMultiaddrBytes(text)
		if err != nil {
			return nil, fmt.Errorf("bootstrap address: %w", err)
		}
		i.Bootstrap = append(i.Bootstrap, addr)
	}
	switch {
	case bytes.Equal(r.b, []byte{0}):
	case len(r.b) == 1+KeySize && r.b[0] == 1:
		i.Key = r.b[1:]
	default:
		return nil, errors.New("it does not end with a key or with none")
	}
	return i, nil
}

// reader takes apart what String has put together.
type reader struct{ b []byte }

// number reads a varint of at most most, in its shortest form.
func (r *reader) number(most uint64) (uint64, error) {
	n, size := binary.Uvarint(r.b)
	if size <= 0 || n > most || size != len(binary.AppendUvarint(nil, n)) {
		return 0, fmt.Errorf("no number up to %d", most)
	}
	r.b = r.b[size:]
	return n, nil
}

// bytes reads a length of at most most, and so many bytes.
func (r *reader) bytes(most uint64) ([]byte, error) {
	n, err := r.number(most)
	if err != nil {
		return nil, err
	}
	if uint64(len(r.b)) < n {
		return nil, fmt.Errorf("%d bytes of %d", len(r.b), n)
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b, nil
}
