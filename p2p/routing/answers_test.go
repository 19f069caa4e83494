package routing

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"golang.org/x/sync/semaphore"
)

// said is a stream on which something is said.
type said struct {
	network.Stream
	io.Reader
}

func (s said) Read(p []byte) (int, error) { return s.Reader.Read(p) }
func (s said) Reset() error               { return nil }
func (s said) Close() error               { return nil }

// asked reads answers as the DHT does: a length byte by byte, and then the rest.
type asked struct{ *answerStream }

// ReadByte implements io.ByteReader.
func (s asked) ReadByte() (byte, error) {
	var b [1]byte
	_, err := io.ReadFull(s, b[:])
	return b[0], err
}

// next reads a message, and returns how much of it has come.
func (s asked) next() (int, error) {
	length, err := binary.ReadUvarint(s)
	if err != nil {
		return 0, err
	}
	return io.ReadFull(s, make([]byte, length))
}

// answer is one of this length, of which this much comes.
func answer(length, comes int) []byte {
	return append(binary.AppendUvarint(nil, uint64(length)), make([]byte, comes)...)
}

// Answers that are long have so much memory together; short ones, and those that come
// after them on the same stream, are not in their way.
func TestLongAnswersOfTheDHTAreBounded(t *testing.T) {
	memory := semaphore.NewWeighted(3 << 20)
	ask := func(comes ...[]byte) asked {
		return asked{&answerStream{Stream: said{Reader: bytes.NewReader(bytes.Join(comes, nil))}, at: frames{most: maxAnswer}, memory: memory}}
	}
	var pending []asked
	for range 3 { // which do not come to their end
		s := ask(answer(1<<20, 100))
		if _, err := binary.ReadUvarint(s); err != nil {
			t.Fatal(err)
		}
		pending = append(pending, s)
	}
	if _, err := ask(answer(1<<20, 1<<20)).next(); !errors.Is(err, errNoRoom) {
		t.Errorf("one too many: %v", err)
	}
	s := ask(answer(smallAnswer, smallAnswer), answer(maxAnswer+1, 0))
	if n, err := s.next(); err != nil || n != smallAnswer {
		t.Errorf("a short one: %d bytes, %v", n, err)
	}
	if _, err := s.next(); !errors.Is(err, errLongMessage) {
		t.Errorf("one that is longer than any: %v", err)
	}
	for i, s := range pending {
		if i == 0 {
			_ = s.Reset()
		} else {
			_ = s.Close()
		}
	}
	s = ask(answer(1<<20, 1<<20), answer(3<<20, 3<<20), answer(2<<20, 1))
	for range 2 {
		if _, err := s.next(); err != nil {
			t.Errorf("once there is room: %v", err)
		}
	}
	if _, err := s.next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("one that is cut off: %v", err)
	}
	if !memory.TryAcquire(3 << 20) {
		t.Error("memory is still taken")
	}
}
