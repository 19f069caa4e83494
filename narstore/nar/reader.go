package nar

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// wordLen is the length of the longest fixed string, "nix-archive-1", in bytes.
const wordLen = len(magic)

// Reader goes through a NAR node by node, in the manner of archive/tar. It
// accepts exactly the canonical archives: no byte could be another without the
// tree being another. It holds one path and one read buffer, however large or
// deep the archive is.
type Reader struct {
	src *bufio.Reader
	// off is how many bytes of the archive were read; at is where the string
	// begins that is being read, for errors.
	off, at int64
	// path is the node's path; of a directory other than the root with a slash
	// at its end. Between two entries it still ends with the name before.
	path []byte
	// dirs holds, for every directory that is open, where the names of its
	// entries begin in path.
	dirs []int
	// size and left are the contents of a regular file, and how much of them
	// is yet to be read.
	size, left int64
	state      readerState
	// err is returned from the first error on.
	err error
	// buf holds the string, num the length or padding that was read last.
	buf [maxTargetLen]byte
	num [8]byte
}

// readerState says what comes next in the archive.
type readerState uint8

const (
	atStart readerState = iota
	// inFile is within or behind the contents of a regular file.
	inFile
	// inSymlink is behind a symlink's target.
	inSymlink
	// inDirectory is before an entry or the end of the innermost directory.
	inDirectory
	// atEnd is behind the last ")".
	atEnd
)

// NewReader returns a Reader of the archive in r. It reads ahead, and to the
// end of r: whatever follows an archive is an error.
func NewReader(r io.Reader) *Reader {
	return &Reader{src: bufio.NewReaderSize(r, 32<<10)}
}

// Next goes on to the next node, passing over what was not read of a file's
// contents. It returns io.EOF when the archive is complete and is all there was.
// An archive that is cut off is an io.ErrUnexpectedEOF.
func (r *Reader) Next() (*Header, error) {
	if r.err != nil {
		return nil, r.err
	}
	h, err := r.next()
	if err != nil {
		return nil, r.fail(err)
	}
	return h, nil
}

// Read reads the contents of the regular file that Next told of, and returns
// io.EOF at their end.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	r.at = r.off
	n, err := r.src.Read(p[:min(int64(len(p)), r.left)])
	r.off += int64(n)
	r.left -= int64(n)
	if err != nil && r.left > 0 {
		return n, r.fail(unexpected(err))
	}
	return n, nil
}

// fail keeps err as what every later call returns.
func (r *Reader) fail(err error) error {
	r.err = err
	if r.state != atEnd || !errors.Is(err, io.EOF) {
		r.err = fmt.Errorf("nar: offset %d, path %.300q: %w", r.at, r.path, err)
	}
	return r.err
}

func (r *Reader) next() (*Header, error) {
	switch r.state {
	case atStart:
		if err := r.expect(magic); err != nil {
			return nil, err
		}
		return r.node()
	case inFile:
		if err := r.skipContents(); err != nil {
			return nil, err
		}
		fallthrough
	case inSymlink:
		if err := r.expect(")"); err != nil {
			return nil, err
		}
		if err := r.endNode(); err != nil {
			return nil, err
		}
	case inDirectory, atEnd:
	}
	for r.state == inDirectory {
		word, err := r.text(wordLen)
		if err != nil {
			return nil, err
		}
		switch string(word) {
		case "entry":
			return r.entry()
		case ")":
			last := len(r.dirs) - 1
			r.path = r.path[:max(r.dirs[last]-len("/"), 0)]
			r.dirs = r.dirs[:last]
			if err := r.endNode(); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf(`%q instead of "entry" or ")"`, word)
		}
	}
	return nil, r.end()
}

// entry reads the entry of a directory up to its node's contents or entries.
func (r *Reader) entry() (*Header, error) {
	if err := r.expect("(", "name"); err != nil {
		return nil, err
	}
	b, err := r.text(maxNameLen)
	if err != nil {
		return nil, err
	}
	name := string(b)
	if err := checkName(name); err != nil {
		return nil, err
	}
	begin := r.dirs[len(r.dirs)-1]
	if before := r.path[begin:]; name <= string(before) {
		return nil, fmt.Errorf("name %q does not sort behind %q", name, before)
	}
	r.path = append(r.path[:begin], name...)
	if len(r.path) > maxPathLen {
		return nil, fmt.Errorf("path is longer than %d bytes", maxPathLen)
	}
	if err := r.expect("node"); err != nil {
		return nil, err
	}
	return r.node()
}

// node reads a node up to its contents or entries.
func (r *Reader) node() (*Header, error) {
	if err := r.expect("(", "type"); err != nil {
		return nil, err
	}
	word, err := r.text(wordLen)
	if err != nil {
		return nil, err
	}
	h := &Header{Path: string(r.path)}
	switch string(word) {
	case "regular":
		h.Type = Regular
		r.state = inFile
		err = r.regular(h)
	case "symlink":
		h.Type = Symlink
		r.state = inSymlink
		err = r.symlink(h)
	case "directory":
		h.Type = Directory
		r.state = inDirectory
		if len(r.path) > 0 {
			r.path = append(r.path, '/')
		}
		r.dirs = append(r.dirs, len(r.path))
	default:
		return nil, fmt.Errorf("type %q", word)
	}
	return h, err
}

func (r *Reader) regular(h *Header) error {
	word, err := r.text(wordLen)
	if err != nil {
		return err
	}
	if string(word) == "executable" {
		h.Executable = true
		if err := r.expect("", "contents"); err != nil {
			return err
		}
	} else if string(word) != "contents" {
		return fmt.Errorf(`%q instead of "executable" or "contents"`, word)
	}
	r.at = r.off
	size, err := r.length()
	if err != nil {
		return err
	}
	if size > math.MaxInt64 {
		return fmt.Errorf("file of %d bytes", size)
	}
	h.Size = int64(size)
	r.size, r.left = h.Size, h.Size
	return nil
}

func (r *Reader) symlink(h *Header) error {
	if err := r.expect("target"); err != nil {
		return err
	}
	b, err := r.text(maxTargetLen)
	if err != nil {
		return err
	}
	h.Target = string(b)
	return checkTarget(h.Target)
}

// skipContents reads the rest of a file's contents, and the zeros behind them.
func (r *Reader) skipContents() error {
	for r.left > 0 {
		n, err := r.src.Discard(int(min(r.left, 1<<20)))
		r.off += int64(n)
		r.left -= int64(n)
		if err != nil {
			r.at = r.off
			return unexpected(err)
		}
	}
	r.at = r.off
	return r.padding(r.size)
}

// endNode goes on behind the last ")" of a node.
func (r *Reader) endNode() error {
	if len(r.dirs) == 0 {
		r.state = atEnd
		return nil
	}
	r.state = inDirectory
	return r.expect(")")
}

// end checks that nothing follows, and returns io.EOF then.
func (r *Reader) end() error {
	r.at = r.off
	_, err := r.src.ReadByte()
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	if err != nil {
		return err
	}
	return errors.New("more bytes behind the archive's end")
}

// expect reads the given strings and nothing else.
func (r *Reader) expect(words ...string) error {
	for _, want := range words {
		word, err := r.text(wordLen)
		if err != nil {
			return err
		}
		if string(word) != want {
			return fmt.Errorf("%q instead of %q", word, want)
		}
	}
	return nil
}

// text reads a string of at most limit bytes. It is valid until the next read.
func (r *Reader) text(limit int) ([]byte, error) {
	r.at = r.off
	size, err := r.length()
	if err != nil {
		return nil, err
	}
	if size > uint64(limit) {
		return nil, fmt.Errorf("string of %d bytes where %d are the most", size, limit)
	}
	b := r.buf[:size]
	if err := r.fill(b); err != nil {
		return nil, err
	}
	return b, r.padding(int64(size))
}

// length reads the length of a string.
func (r *Reader) length() (uint64, error) {
	if err := r.fill(r.num[:]); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(r.num[:]), nil
}

// padding reads the zeros behind a string of size bytes.
func (r *Reader) padding(size int64) error {
	b := r.num[:padding(size)]
	if err := r.fill(b); err != nil {
		return err
	}
	if !bytes.Equal(b, zeros[:len(b)]) {
		return errors.New("padding is not zero")
	}
	return nil
}

func (r *Reader) fill(b []byte) error {
	n, err := io.ReadFull(r.src, b)
	r.off += int64(n)
	return unexpected(err)
}

// unexpected is for reads within an archive, where no end may be.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
