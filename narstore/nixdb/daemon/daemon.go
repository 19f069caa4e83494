// Package daemon asks a nix-daemon what its store holds: the reading part of
// Nix's worker protocol, over the daemon's unix socket.
//
// It speaks the protocol's versions 1.21 to 1.35, negotiated, which every Nix
// from 2.3 on understands. The protocol is described by its implementation:
// libstore's worker-protocol.hh, worker-protocol-connection.cc and daemon.cc.
package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"strings"
	"time"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

const (
	clientMagic = 0x6e697863 // "nixc"
	serverMagic = 0x6478696f // "dxio"

	// The version's major number is its second byte, the minor its first.
	majorMask  = 0xff00
	maxVersion = 1<<8 | 35 // from 1.38 on more is negotiated than we need
	minVersion = 1<<8 | 21 // Nix 2.3

	opQueryAllValidPaths    = 23
	opQueryPathInfo         = 26
	opQueryPathFromHashPart = 29

	// ioTimeout is for one operation or batch. It is long because a garbage
	// collector's lock may stand before it.
	ioTimeout = time.Minute
	// pipeline is the number of requests sent ahead of their answers: about
	// 32 KB, which fits into the socket's buffer, so that writing never waits
	// for the reading of answers.
	pipeline = 256
)

// Conn is a connection to a daemon. It is not safe for concurrent use. After an
// error other than *Error it is of no more use and must be closed.
type Conn struct {
	conn    net.Conn
	r       reader
	version uint64
	buf     []byte
}

// Dial connects to the daemon's socket.
func Dial(ctx context.Context, socket string) (*Conn, error) {
	dialer := net.Dialer{Timeout: ioTimeout}
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("daemon: %w", err)
	}
	c := &Conn{conn: conn, r: reader{r: bufio.NewReaderSize(conn, 64<<10)}}
	if err := c.do(ctx, c.handshake); err != nil {
		return nil, errors.Join(fmt.Errorf("daemon: handshake at %s: %w", socket, err), conn.Close())
	}
	return c, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// do runs op under the context and the timeout.
func (c *Conn) do(ctx context.Context, op func() error) error {
	if err := c.conn.SetDeadline(time.Now().Add(ioTimeout)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err := op()
	if ctx.Err() != nil {
		// The stream may be cut anywhere: nothing after this is answered.
		c.r.fail(ctx.Err())
		return ctx.Err()
	}
	return err
}

// flush sends what buf has gathered.
func (c *Conn) flush() error {
	_, err := c.conn.Write(c.buf)
	c.buf = c.buf[:0]
	if err != nil {
		c.r.fail(err)
	}
	return c.r.err
}

func (c *Conn) handshake() error {
	c.buf = appendUint64(c.buf, clientMagic)
	if err := c.flush(); err != nil {
		return err
	}
	if magic := c.r.uint64(); c.r.err == nil && magic != serverMagic {
		return fmt.Errorf("answers with %#x: not a nix-daemon", magic)
	}
	server := c.r.uint64()
	if c.r.err != nil {
		return c.r.err
	}
	if server&majorMask != maxVersion&majorMask || server < minVersion {
		return fmt.Errorf("protocol version %d.%d is not supported", server>>8, server&0xff)
	}
	c.version = min(server, maxVersion)
	c.buf = appendUint64(c.buf, c.version)
	c.buf = appendUint64(c.buf, 0) // no CPU affinity
	c.buf = appendUint64(c.buf, 0) // no reserved space
	if err := c.flush(); err != nil {
		return err
	}
	if c.version >= 1<<8|33 {
		c.r.string(maxTextLen) // the daemon's Nix version
	}
	if c.version >= 1<<8|35 {
		c.r.uint64() // whether it trusts us
	}
	return c.r.messages(c.version)
}

// AllValidPaths lists the store. Malformed paths are left out and returned
// apart, as text.
func (c *Conn) AllValidPaths(ctx context.Context) (paths []nix.StorePath, malformed []string, err error) {
	err = c.do(ctx, func() error {
		c.buf = appendUint64(c.buf, opQueryAllValidPaths)
		if err := c.flush(); err != nil {
			return err
		}
		if err := c.r.messages(c.version); err != nil {
			return err
		}
		for range c.r.count("list of paths", maxPaths) {
			text := c.r.string(maxPathLen)
			if c.r.err != nil {
				break
			}
			if path, err := nix.ParseStorePath(text); err != nil {
				malformed = append(malformed, text)
			} else {
				paths = append(paths, path)
			}
		}
		return c.r.err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("daemon: list of all paths: %w", err)
	}
	return paths, malformed, nil
}

// PathFromHashPart returns the valid path with this hash part, or an error that
// is narstore.ErrNotFound.
func (c *Conn) PathFromHashPart(ctx context.Context, part nix.HashPart) (nix.StorePath, error) {
	var text string
	err := c.do(ctx, func() error {
		c.buf = appendString(appendUint64(c.buf, opQueryPathFromHashPart), part.String())
		if err := c.flush(); err != nil {
			return err
		}
		if err := c.r.messages(c.version); err != nil {
			return err
		}
		text = c.r.string(maxPathLen)
		return c.r.err
	})
	switch {
	case err != nil:
		return nix.StorePath{}, fmt.Errorf("daemon: path of %s: %w", part, err)
	case text == "":
		return nix.StorePath{}, narstore.ErrNotFound
	}
	path, err := nix.ParseStorePath(text)
	if err == nil && path.HashPart() != part {
		err = fmt.Errorf("answer is %s", path)
	}
	if err != nil {
		return nix.StorePath{}, fmt.Errorf("daemon: path of %s: %w", part, err)
	}
	return path, nil
}

// Result is the answer about one path. Err is narstore.ErrNotFound where it is
// not valid, and something else where its record is malformed or refused.
type Result struct {
	Info *narstore.PathInfo
	Err  error
}

// PathInfos asks about paths, with many requests under way at once. The results
// are in the order of paths.
func (c *Conn) PathInfos(ctx context.Context, paths []nix.StorePath) ([]Result, error) {
	results := make([]Result, 0, len(paths))
	for len(paths) > 0 {
		batch := paths[:min(pipeline, len(paths))]
		paths = paths[len(batch):]
		err := c.do(ctx, func() error {
			for _, path := range batch {
				c.buf = appendString(appendUint64(c.buf, opQueryPathInfo), path.String())
			}
			if err := c.flush(); err != nil {
				return err
			}
			for _, path := range batch {
				info, err := c.pathInfo(path)
				if c.r.err != nil {
					return c.r.err
				}
				results = append(results, Result{Info: info, Err: err})
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("daemon: path infos: %w", err)
		}
	}
	return results, nil
}

// pathInfo reads the answer about one path. It reads the whole answer before
// it judges any of it, so that a malformed record costs that record alone.
func (c *Conn) pathInfo(path nix.StorePath) (*narstore.PathInfo, error) {
	if err := c.r.messages(c.version); err != nil {
		return nil, err
	}
	if !c.r.bool() {
		return nil, narstore.ErrNotFound
	}
	deriver := c.r.string(maxPathLen)
	hash := c.r.string(maxPathLen)
	references := c.r.strings("references", maxReferences, maxPathLen)
	c.r.uint64() // time of registration
	size := c.r.uint64()
	ultimate := c.r.bool()
	signatures := c.r.strings("signatures", maxSignatures, maxPathLen)
	ca := c.r.string(maxPathLen)
	if c.r.err != nil {
		return nil, c.r.err
	}
	info := &narstore.PathInfo{Path: path, CA: ca, Ultimate: ultimate}
	var err error
	// The hash stands alone: hexadecimal, without the name of its algorithm.
	if info.NARHash, err = nix.ParseNARHash("sha256:" + strings.TrimPrefix(hash, "sha256:")); err != nil {
		return nil, err
	}
	if size == 0 || size > math.MaxInt64 {
		return nil, fmt.Errorf("NAR size %d", size)
	}
	info.NARSize = int64(size)
	if err := narinfo.CheckValue(ca); err != nil {
		return nil, fmt.Errorf("content address: %w", err)
	}
	if deriver != "" {
		if info.Deriver, err = nix.ParseStorePath(deriver); err != nil {
			return nil, err
		}
	}
	for _, text := range references {
		ref, err := nix.ParseStorePath(text)
		if err != nil {
			return nil, fmt.Errorf("reference: %w", err)
		}
		info.References = append(info.References, ref)
	}
	for _, text := range signatures {
		if sig, err := narinfo.ParseSignature(text); err == nil {
			info.Signatures = append(info.Signatures, sig)
		}
	}
	return info, nil
}
