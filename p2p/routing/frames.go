package routing

import (
	"errors"
	"fmt"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	"golang.org/x/sync/semaphore"
)

// maxMessage is the longest message that a peer may send to the DHT, in bytes. The
// longest that is of use is a record of IPNS, of 10 KiB; the addresses of a provider
// come next. The DHT itself takes up to 4 MiB, and has memory for all of it as soon as
// it has read the length, on each of more than a thousand streams.
const maxMessage = 32 << 10

// Answers are as long as there are providers: up to maxAnswer, which is what the DHT
// takes. Those above smallAnswer have answersMemory together, all in bytes; what finds
// no room counts as no answer.
const (
	maxAnswer     = network.MessageSizeMax
	smallAnswer   = 64 << 10
	answersMemory = 64 << 20
)

var (
	errLongMessage = errors.New("the message is too long")
	errNoRoom      = errors.New("other answers of the DHT take all the memory that there is for them")
)

// frames follows messages, each with its length as a varint before it.
type frames struct {
	// most is the longest message that there may be.
	most uint64
	// left is how many bytes of a message are still to come.
	left uint64
	// length is what has been read of a length, of which shift bits are known.
	length uint64
	shift  uint
}

// pass takes note of bytes that have been read, and returns the length of the last
// message that begins with them, 0 for none. The error comes with the byte that makes a
// message too long, before anybody else knows how long it is.
func (f *frames) pass(p []byte) (begun uint64, err error) {
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
		if f.length > f.most || f.shift > 28 {
			return 0, fmt.Errorf("%w: more than %d bytes", errLongMessage, f.most)
		}
		if b < 0x80 {
			begun = f.length
			*f = frames{most: f.most, left: f.length}
		}
	}
	return begun, nil
}

// answerStream is one on which the DHT has asked something.
type answerStream struct {
	network.Stream

	at     frames
	memory *semaphore.Weighted

	mu sync.Mutex
	// held is how much of the memory it has, and ended that it gets no more.
	held  int64
	ended bool
}

// Read reads, and takes memory for what is announced by what it has read.
func (s *answerStream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	begun, refused := s.at.pass(p[:n])
	if refused == nil && begun > smallAnswer && !s.take(int64(begun)) {
		refused = errNoRoom
	}
	if refused != nil {
		_ = s.Reset()
		return 0, refused
	}
	if s.at.left == 0 || err != nil {
		s.give(false)
	}
	return n, err
}

func (s *answerStream) take(n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || !s.memory.TryAcquire(n) {
		return false
	}
	s.held += n
	return true
}

func (s *answerStream) give(ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.memory.Release(s.held)
	s.held = 0
	s.ended = s.ended || ended
}

// Close implements network.Stream.
func (s *answerStream) Close() error {
	s.give(true)
	return s.Stream.Close()
}

// Reset implements network.Stream.
func (s *answerStream) Reset() error {
	s.give(true)
	return s.Stream.Reset()
}

// ResetWithError implements network.Stream.
func (s *answerStream) ResetWithError(code network.StreamErrorCode) error {
	s.give(true)
	return s.Stream.ResetWithError(code)
}
