// Package psk reads and writes the file with a network's pre-shared key. It has
// the form that IPFS calls swarm.key:
//
//	/key/swarm/psk/1.0.0/
//	/base16/
//	<64 hexadecimal digits>
package psk

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/libp2p/go-libp2p/core/pnet"
)

// maxFile bounds what is read of a file with a pre-shared key. In its longest
// form it has 95 bytes.
const maxFile = 1 << 10

// Load returns the key in a file. Whoever reads it can join the network, so a
// file that everybody may read or write is refused. A group may read it: that is
// how services get at secrets.
func Load(path string) (pnet.PSK, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("pre-shared key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("pre-shared key %s is not a regular file", path)
	}
	if perm := info.Mode().Perm(); perm&0o007 != 0 {
		return nil, fmt.Errorf("pre-shared key %s has mode %#o, everybody can use it: chmod 600 it", path, perm)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("pre-shared key: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, fmt.Errorf("pre-shared key %s: %w", path, err)
	}
	key, err := pnet.DecodeV1PSK(bytes.NewReader(text))
	if err != nil {
		// Not what stands there instead of the key: that might be part of one.
		return nil, fmt.Errorf("pre-shared key %s is not a file of the form /key/swarm/psk/1.0.0/", path)
	}
	return key, nil
}

// Format gives the text of the file from which Load reads the key.
func Format(key pnet.PSK) string {
	return fmt.Sprintf("/key/swarm/psk/1.0.0/\n/base16/\n%x\n", []byte(key))
}
