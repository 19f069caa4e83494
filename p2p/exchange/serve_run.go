package exchange

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/p2p/wirepb"
)

const (
	// minShare is what a session must get of the upload limit, in bytes per
	// second: at half of it the longest chunk would take longer than clients wait.
	minShare = 64 << 10
	// limitedWrite is the part of a second's bytes that goes out with one write
	// where there is an upload limit, but minWrite at least and writeSize at most:
	// turns are short then, and no client thinks that its stream has stalled.
	limitedWrite = 1.0 / 256
	minWrite     = 16 << 10
)

// run sends chunks, straight from the files.
func (n *shownNAR) run(ctx context.Context, m *wirepb.Run) (more bool, err error) {
	run, err := spanFromWire(m)
	if err != nil {
		return false, err
	}
	// The NAR may have been withdrawn since it was opened.
	if _, _, held := n.shelf.Held(n.hash); !held {
		return n.refuse(wirepb.Status_STATUS_NOT_HELD, 0)
	}
	if err := n.checkShare(); err != nil {
		return false, err
	}
	if err := n.charge(n.holder, workOfRun(run)); err != nil {
		return false, err
	}
	if n.nar == nil {
		if err := n.charge(n.holder, workOfOpening); err != nil {
			return false, err
		}
		nar, err := n.shelf.Open(ctx, n.hash)
		if err != nil {
			if !errors.Is(err, narstore.ErrNotFound) {
				n.log.Warn("NAR not opened", zap.Stringer("narHash", n.hash), zap.Error(err))
			}
			return n.refuse(wirepb.Status_STATUS_NOT_HELD, 0)
		}
		n.nar = nar
	}
	if end := run.end(); end > n.nar.Size() {
		return false, fmt.Errorf("%w: run ends at %d of %d bytes", ErrProtocol, end, n.nar.Size())
	}
	n.counters.uploads.Add(1)
	defer n.counters.uploads.Add(-1)
	return n.sendChunks(run)
}

// checkShare fits writes to the upload limit, and returns a *noRoomError where the
// session would get too little of it. A peer's first session is spared once it
// has begun.
func (n *shownNAR) checkShare() error {
	n.out.gather, n.out.most = writeSize, 0
	limit, limited := n.uplink.perSecond()
	if !limited {
		return nil
	}
	n.out.most = int(min(max(limit*limitedWrite, minWrite), writeSize))
	n.out.gather = n.out.most
	peers, streams := n.sessions.load(n.peer)
	switch {
	case streams > 1 && limit/float64(peers*streams) < minShare,
		n.nar == nil && peers > 1 && limit/float64(peers) < minShare:
		return &noRoomError{reason: refusedShare}
	}
	return nil
}

func (n *shownNAR) sendChunks(run span) (more bool, err error) {
	var b batch
	offset := run.offset
	for _, length := range run.lengths {
		before := len(n.out.buf)
		if err := n.add(&b, offset, int(length)); err != nil {
			// The path went away or its disk is ill: another peer may have it.
			n.log.Warn("NAR not read", zap.Stringer("narHash", n.hash), zap.Int64("offset", offset), zap.Error(err))
			n.out.buf = n.out.buf[:before]
			return n.refuse(wirepb.Status_STATUS_NOT_HELD, 0)
		}
		if n.out.full() {
			if err := n.flush(&b); err != nil {
				return false, err
			}
		}
		offset += int64(length)
	}
	return true, n.flush(&b)
}

// batch is the chunks that go out with one write.
type batch struct {
	// raw, zstd count bytes as they go out.
	raw, zstd int
	// tried counts the bytes that the compressor was given, for compressing.
	tried       int
	compressing time.Duration
}

// flush writes a batch, and learns from how long that and the wait for the run
// have taken.
func (n *shownNAR) flush(b *batch) error {
	if err := n.out.flush(); err != nil {
		return err
	}
	n.counters.raw.Add(int64(b.raw))
	n.counters.zstd.Add(int64(b.zstd))
	took := n.out.writing + n.waited
	n.waited = 0
	if b.zstd > 0 {
		n.line.compressed(b.tried, b.compressing, took)
	} else if b.raw > 0 {
		n.line.wrote(b.raw, took, n.compressor.perSecond())
	}
	*b = batch{}
	return nil
}

// add gathers one chunk.
func (n *shownNAR) add(b *batch, offset int64, length int) error {
	if n.compresses() && n.yield.worthTrying() {
		return n.addCompressed(b, offset, length)
	}
	n.out.buf = appendChunkHeader(n.out.buf, wirepb.Encoding_ENCODING_RAW, length)
	at := len(n.out.buf)
	n.out.buf = slices.Grow(n.out.buf, length)[:at+length]
	b.raw += length
	return n.read(n.out.buf[at:], offset)
}

// compresses reports whether compression is wanted and would pay off: where the
// line, or what may be sent, is slower than the compressor.
func (n *shownNAR) compresses() bool {
	if !n.zstd {
		return false
	}
	limit, limited := n.uplink.perSecond()
	return limited && limit < n.compressor.perSecond() || n.line.isSlow()
}

func (n *shownNAR) addCompressed(b *batch, offset int64, length int) error {
	raw, compressed := n.buffer(), n.buffer()
	defer n.buffers.Put(raw)
	defer n.buffers.Put(compressed)
	body := (*raw)[:length]
	if err := n.read(body, offset); err != nil {
		return err
	}
	start := time.Now()
	shrunk := n.encoder.EncodeAll(body, (*compressed)[:0])
	took := time.Since(start)
	n.compressor.add(length, took)
	b.tried += length
	b.compressing += took
	encoding := wirepb.Encoding_ENCODING_RAW
	worth := worthwhile(len(shrunk), length)
	n.yield.tried(worth)
	if worth {
		body, encoding = shrunk, wirepb.Encoding_ENCODING_ZSTD
		b.zstd += len(body)
	} else {
		b.raw += len(body)
	}
	n.out.buf = append(appendChunkHeader(n.out.buf, encoding, len(body)), body...)
	return nil
}

// read fills b with the NAR's bytes at offset.
func (n *shownNAR) read(b []byte, offset int64) error {
	got, err := n.nar.ReadAt(b, offset)
	if got == len(b) {
		return nil // ReadAt may say io.EOF at the very end
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (n *shownNAR) buffer() *[]byte {
	b, ok := n.buffers.Get().(*[]byte)
	if !ok {
		panic("exchange: pool of buffers holds something else")
	}
	return b
}

func appendChunkHeader(b []byte, encoding wirepb.Encoding, length int) []byte {
	return appendMessage(b, &wirepb.NARResponse{Response: &wirepb.NARResponse_Chunk{
		Chunk: &wirepb.Chunk{Encoding: encoding, Length: uint32(length)},
	}})
}
