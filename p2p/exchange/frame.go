package exchange

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/multiformats/go-varint"
	"google.golang.org/protobuf/proto"
)

// inbox reads length-delimited messages, and raw bytes between them, from a
// stream.
type inbox struct {
	stream network.Stream
	r      *bufio.Reader
	// message holds the message being read; it grows as bytes arrive, not as the
	// peer announces them.
	message bytes.Buffer
}

// newInbox returns an inbox that reads size bytes ahead.
func newInbox(s network.Stream, size int) *inbox {
	return &inbox{stream: s, r: bufio.NewReaderSize(s, size)}
}

// wait bounds the reads that follow.
func (in *inbox) wait(d time.Duration) error {
	if err := in.stream.SetReadDeadline(time.Now().Add(d)); err != nil {
		return fmt.Errorf("read deadline: %w", err)
	}
	return nil
}

// read reads one message of at most limit bytes. The error is io.EOF where the
// stream ends before it.
func (in *inbox) read(m proto.Message, limit int) error {
	return readMessage(in.r, &in.message, m, limit)
}

// readMessage reads one message by way of buf. What the peer did wrong is
// ErrProtocol.
func readMessage(r *bufio.Reader, buf *bytes.Buffer, m proto.Message, limit int) error {
	length, err := varint.ReadUvarint(r)
	switch {
	case errors.Is(err, varint.ErrNotMinimal), errors.Is(err, varint.ErrOverflow):
		return fmt.Errorf("%w: message length: %w", ErrProtocol, err)
	case err != nil:
		return err
	case length > uint64(limit):
		return fmt.Errorf("%w: message of %d bytes, at most %d allowed", ErrProtocol, length, limit)
	}
	buf.Reset()
	if _, err := io.CopyN(buf, r, int64(length)); err != nil {
		return cutShort(err)
	}
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(buf.Bytes(), m); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return nil
}

// cutShort turns the end of a stream into the error that it is where more had
// to come.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// appendMessage appends the message and its length.
func appendMessage(b []byte, m proto.Message) []byte {
	opts := proto.MarshalOptions{Deterministic: true}
	b = binary.AppendUvarint(b, uint64(opts.Size(m)))
	b, err := opts.MarshalAppend(b, m)
	if err != nil {
		panic("exchange: own message: " + err.Error())
	}
	return b
}

// outbox gathers what is to be sent and writes it in large pieces.
type outbox struct {
	stream network.Stream
	// timeout bounds each write: it is what a slow reader is allowed.
	timeout time.Duration
	// gather is how many bytes are gathered for one write, and most how many go
	// out with one; 0 is all.
	gather, most int
	// pace, if not nil, waits until n bytes may be sent.
	pace func(n int) error
	// slot, if not nil, is the stream's, which others may have where a write takes
	// longer than grace.
	slot  *slot
	grace time.Duration
	buf   []byte
	// writing is how long the last flush spent in writes.
	writing time.Duration
}

// add gathers a message and writes where enough has come together.
func (o *outbox) add(m proto.Message) error {
	o.buf = appendMessage(o.buf, m)
	return o.flushFull()
}

// send writes a message and all that was gathered before it.
func (o *outbox) send(m proto.Message) error {
	o.buf = appendMessage(o.buf, m)
	return o.flush()
}

func (o *outbox) full() bool { return len(o.buf) >= o.gather }

func (o *outbox) flushFull() error {
	if !o.full() {
		return nil
	}
	return o.flush()
}

// flush writes what was gathered.
func (o *outbox) flush() error {
	o.writing = 0
	for rest := o.buf; len(rest) > 0; {
		n := len(rest)
		if o.most > 0 {
			n = min(n, o.most)
		}
		if err := o.writePart(rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	o.buf = o.buf[:0]
	return nil
}

// writePart writes when it may.
func (o *outbox) writePart(b []byte) error {
	if o.pace != nil {
		if err := o.pace(len(b)); err != nil {
			return err
		}
	}
	if err := o.stream.SetWriteDeadline(time.Now().Add(o.timeout)); err != nil {
		return fmt.Errorf("write deadline: %w", err)
	}
	if o.slot == nil {
		return o.write(b)
	}
	o.slot.waiting(o.grace)
	err := o.write(b)
	if !o.slot.working() && err == nil {
		err = errLostSlot
	}
	return err
}

func (o *outbox) write(b []byte) error {
	start := time.Now()
	_, err := o.stream.Write(b)
	o.writing += time.Since(start)
	return err
}
