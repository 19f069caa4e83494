package host

import (
	"encoding/binary"
	"net"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
)

// muxer is libp2p's yamux with the credit that it loses.
//
// A stream's window begins with 256 KiB, and the reader gives credit back when
// half of a window is read. Where that happens often it doubles the window in the
// same breath; but then it tells the sender only of what is new, and of what was
// read never (go-yamux 5.1.0, Stream.sendWindowUpdate). However large the window
// has become, the sender may then use half of it and 128 KiB: it has next to
// nothing left when the other half is read, and waits for a round trip each time.
// TCP below goes idle meanwhile and then sends all at once, which overflows
// queues. Over 100 Mbit/s and 20 ms that costs a quarter of the rate.
type muxer struct{ network.Multiplexer }

func newMuxer() muxer { return muxer{yamux.DefaultTransport} }

// NewConn implements network.Multiplexer.
func (m muxer) NewConn(c net.Conn, isServer bool, scope network.PeerScope) (network.MuxedConn, error) {
	return m.Multiplexer.NewConn(&creditor{Conn: c, windows: make(map[uint32]uint32)}, isServer, scope)
}

// A frame begins with a version and a type, one byte each, flags (two), the stream's
// number and a length (four each): of the data behind it, or the credit of a window
// update. See yamux's specification.
const (
	frameHeader  = 12
	windowUpdate = 1
	flagsOfEnd   = 0x4 | 0x8 // FIN, RST
	firstWindow  = 256 << 10
	// maxWindows is how many streams are kept in mind, of those whose windows have
	// grown and which this side has not ended. Others have to do with less.
	maxWindows = 1024
)

// creditor is a connection into which yamux writes one frame at a time. It gives
// back the credit that is lost when a window doubles.
type creditor struct {
	net.Conn

	// windows are the sizes of those that have grown, in bytes. Only Write uses it,
	// which is called by one goroutine.
	windows map[uint32]uint32
}

// Write writes a frame.
func (c *creditor) Write(frame []byte) (int, error) {
	if len(frame) < frameHeader {
		return c.Conn.Write(frame)
	}
	flags, stream := binary.BigEndian.Uint16(frame[2:]), binary.BigEndian.Uint32(frame[4:])
	if flags&flagsOfEnd != 0 {
		delete(c.windows, stream)
	}
	if frame[1] != windowUpdate || flags != 0 {
		return c.Conn.Write(frame)
	}
	credit := binary.BigEndian.Uint32(frame[8:])
	window, grown := c.windows[stream]
	if !grown {
		window = firstWindow
	}
	// One that stays as it is gives back half of it and at most one frame more; one
	// that doubles, just as much as it had. What is lost is half of that at least.
	if credit != window || !grown && len(c.windows) == maxWindows {
		return c.Conn.Write(frame)
	}
	c.windows[stream] = 2 * window
	repaired := [frameHeader]byte(frame)
	binary.BigEndian.PutUint32(repaired[8:], credit+credit/2)
	return c.Conn.Write(repaired[:])
}
