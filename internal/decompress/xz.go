package decompress

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The .xz container (tukaani.org/xz/xz-file-format.txt) is read here and not by
// a package, because those allocate whatever dictionary a block asks for, up to
// 4 GiB. Checksums are skipped: the NAR hash covers more. Only the first stream
// is read, and only the LZMA2 filter is known.

const (
	xzHeaderLen   = 12 // magic, flags, CRC
	xzLZMA2       = 0x21
	xzMinDict     = 4 << 10
	xzHasPacked   = 0x40 // block flags
	xzHasUnpacked = 0x80
	xzFilters     = 0x03
	xzReserved    = 0x3c
)

var (
	xzMagic = []byte{0xfd, '7', 'z', 'X', 'Z', 0}
	errXZ   = errors.New("xz: malformed")
)

type xzReader struct {
	in    *countingReader
	size  int64 // plain bytes wanted at most
	check int   // length of each block's checksum; -1 before the stream header
	block io.Reader
	start int64 // of the block's data in in
	err   error
}

func newXZReader(r io.Reader, size int64) *xzReader {
	return &xzReader{in: &countingReader{r: r}, size: size, check: -1}
}

func (x *xzReader) Read(p []byte) (int, error) {
	for x.err == nil {
		if x.block == nil {
			if x.err = x.nextBlock(); x.err != nil {
				break
			}
		}
		n, err := x.block.Read(p)
		if errors.Is(err, io.EOF) {
			err = x.endBlock()
		}
		x.err = err
		if n > 0 || len(p) == 0 {
			return n, nil
		}
	}
	return 0, x.err
}

func (x *xzReader) streamHeader() error {
	var h [xzHeaderLen]byte
	if err := x.full(h[:]); err != nil {
		return err
	}
	flags := h[len(xzMagic):]
	if !bytes.HasPrefix(h[:], xzMagic) || flags[0] != 0 || flags[1] > 0x0f {
		return errXZ
	}
	if flags[1] == 0 {
		x.check = 0
		return nil
	}
	x.check = 4 << ((flags[1] - 1) / 3) // section 2.1.1.2
	return nil
}

// nextBlock reads a block header; io.EOF is the index, which ends the stream.
func (x *xzReader) nextBlock() error {
	if x.check < 0 {
		if err := x.streamHeader(); err != nil {
			return err
		}
	}
	var length [1]byte
	if err := x.full(length[:]); err != nil {
		return err
	}
	if length[0] == 0 {
		return io.EOF
	}
	header := make([]byte, int(length[0])*4+3) // with its CRC
	if err := x.full(header); err != nil {
		return err
	}
	dict, err := xzDictionary(header[:len(header)-4])
	if err != nil {
		return err
	}
	// No match can reach further back than the data is long.
	dict = max(min(dict, x.size), xzMinDict)
	if dict > maxWindow {
		return fmt.Errorf("xz: a dictionary of %d bytes", dict)
	}
	x.start = x.in.n
	x.block = newLZMA2Reader(x.in, int(dict))
	return err
}

// xzDictionary returns the dictionary size that a block header gives.
func xzDictionary(h []byte) (int64, error) {
	flags := h[0]
	if flags&(xzReserved|xzFilters) != 0 {
		return 0, errors.New("xz: filters other than LZMA2")
	}
	r := bytes.NewReader(h[1:])
	for _, bit := range []byte{xzHasPacked, xzHasUnpacked} {
		if flags&bit != 0 {
			if _, err := binary.ReadUvarint(r); err != nil {
				return 0, errXZ
			}
		}
	}
	var filter [3]byte // ID, length of the properties, dictionary size
	if _, err := io.ReadFull(r, filter[:]); err != nil || filter[0] != xzLZMA2 || filter[1] != 1 {
		return 0, errXZ
	}
	bits := filter[2]
	switch {
	case bits > 40:
		return 0, errXZ
	case bits == 40:
		return 1<<32 - 1, nil
	}
	return int64(2|bits&1) << (bits/2 + 11), nil // section 5.3.1
}

// endBlock skips the padding and the checksum behind a block's data.
func (x *xzReader) endBlock() error {
	x.block = nil
	padding := -(x.in.n - x.start) & 3
	return x.full(make([]byte, int(padding)+x.check))
}

// full fills p; an end before that is an error.
func (x *xzReader) full(p []byte) error {
	_, err := io.ReadFull(x.in, p)
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
