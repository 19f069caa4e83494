package routing

import (
	"errors"
	"fmt"
)

// maxMessage is the longest message that a peer may send to the DHT, in bytes. The
// longest that is of use is a record of IPNS, of 10 KiB; the addresses of a provider
// come next. The DHT itself takes up to 4 MiB, and has memory for all of it as soon as
// it has read the length, on each of more than a thousand streams.
const maxMessage = 32 << 10

var errLongMessage = errors.New("the message is too long")

// frames follows messages, each with its length as a varint before it.
type frames struct {
	// left is how many bytes of a message are still to come.
	left uint64
	// length is what has been read of a length, of which shift bits are known.
	length uint64
	shift  uint
}

// pass takes note of bytes that have been read. The error comes with the byte that
// makes a message too long, before anybody knows how long it is.
func (f *frames) pass(p []byte) error {
	for len(p) > 0 {
		if n := min(f.left, uint64(len(p))); n > 0 {
			f.left -= n
			p = p[n:]
			continue
		}
		b := p[0]
		p = p[1:]
		f.length |= uint64(b&0x7f) << f.shift
		f.shift += 7
		if f.length > maxMessage || f.shift > 28 {
			return fmt.Errorf("%w: more than %d bytes", errLongMessage, maxMessage)
		}
		if b < 0x80 {
			*f = frames{left: f.length}
		}
	}
	return nil
}
