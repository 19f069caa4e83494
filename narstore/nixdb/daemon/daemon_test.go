package daemon_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/nixdb/daemon"
)

const (
	pathText = "/nix/store/00000000000000000000000000000001-one"
	nextText = "/nix/store/00000000000000000000000000000002-two"
	hexHash  = "1111111111111111111111111111111111111111111111111111111111111111"

	serverMagic = 0x6478696f
	last        = 0x616c7473
	refused     = 0x63787470
)

// words encodes integers and strings as the protocol has them.
func words(list ...any) []byte {
	var b []byte
	for _, w := range list {
		switch w := w.(type) {
		case int:
			b = binary.LittleEndian.AppendUint64(b, uint64(w))
		case string:
			b = binary.LittleEndian.AppendUint64(b, uint64(len(w)))
			b = append(b, w...)
			b = append(b, make([]byte, -len(w)&7)...)
		case []byte:
			b = append(b, w...)
		}
	}
	return b
}

// greeting is the handshake of a daemon of version 1.34.
var greeting = words(serverMagic, 1<<8|34, "2.8.0", last)

// record is the answer about pathText.
func record(size int, references ...any) []byte {
	refs := words(append([]any{len(references)}, references...)...)
	return words(last, 1, "", hexHash, refs, 0, size, 1, 2, "not a signature", "x:y", "text:sha256:z")
}

// serve answers the first connection to a new socket with these bytes, whatever
// it is asked.
func serve(t *testing.T, answer []byte) (socket string, asked func() []byte) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	request := make(chan []byte, 1)
	go func() {
		defer close(request)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		go func() {
			if _, err := conn.Write(answer); err != nil {
				return
			}
			if c, ok := conn.(*net.UnixConn); ok {
				c.CloseWrite()
			}
		}()
		b, _ := io.ReadAll(conn)
		request <- b
	}()
	t.Cleanup(func() { listener.Close() })
	return socket, func() []byte { return <-request }
}

func mustParse(t *testing.T, text string) nix.StorePath {
	t.Helper()
	path, err := nix.ParseStorePath(text)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestHandshake(t *testing.T) {
	tests := []struct {
		name    string
		answer  []byte
		want    int // the version that we must answer with, 0 if none
		wantErr string
	}{
		{name: "Nix 2.3", answer: words(serverMagic, 1<<8|21, last), want: 1<<8 | 21},
		{name: "Nix 2.8", answer: greeting, want: 1<<8 | 34},
		{name: "Nix 2.15", answer: words(serverMagic, 1<<8|35, "2.15.0", 1, last), want: 1<<8 | 35},
		{name: "Nix 2.34", answer: words(serverMagic, 1<<8|38, "2.34.8", 1, last), want: 1<<8 | 35},
		{name: "too old", answer: words(serverMagic, 1<<8|20, last), wantErr: "protocol version 1.20"},
		{name: "too new", answer: words(serverMagic, 2<<8|35, last), wantErr: "protocol version 2.35"},
		{name: "no daemon", answer: []byte("HTTP/1.1 400 Bad Request\r\n\r\n"), wantErr: "not a nix-daemon"},
		{name: "silence", wantErr: "unexpected EOF"},
		{
			name:    "refusal",
			answer:  words(serverMagic, 1<<8|34, "2.8.0", refused, "Error", 0, "Error", "not allowed", 0, 1, 0, "trace"),
			want:    1<<8 | 34,
			wantErr: "nix-daemon says: not allowed",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			socket, asked := serve(t, test.answer)
			conn, err := daemon.Dial(t.Context(), socket)
			if err == nil {
				conn.Close()
			}
			if (err != nil) != (test.wantErr != "") || err != nil && !strings.Contains(err.Error(), test.wantErr) {
				t.Errorf("Dial = %v, want error %q", err, test.wantErr)
			}
			want := words(0x6e697863)
			if test.want != 0 {
				want = words(0x6e697863, test.want, 0, 0)
			}
			if got := asked(); !bytes.Equal(got, want) {
				t.Errorf("the client sends %x, want %x", got, want)
			}
		})
	}
}

// dial connects to a daemon that will answer so after the handshake.
func dial(t *testing.T, answer []byte) *daemon.Conn {
	t.Helper()
	socket, _ := serve(t, append(bytes.Clone(greeting), answer...))
	conn, err := daemon.Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestPathInfos(t *testing.T) {
	const start, result, next = 0x53545254, 0x52534c54, 0x6f6c6d67
	chatter := words(next, "text", start, 1, 2, 3, "text", 2, 0, 7, 1, "field", 0, result, 1, 2, 0)
	path, two := mustParse(t, pathText), mustParse(t, nextText)
	hash, err := nix.ParseNARHash("sha256:" + hexHash)
	if err != nil {
		t.Fatal(err)
	}
	good := &narstore.PathInfo{
		Path: path, NARHash: hash, NARSize: 120, References: []nix.StorePath{path, two}, Ultimate: true, CA: "text:sha256:z",
	}
	answer := bytes.Join([][]byte{
		chatter, record(120, pathText, nextText),
		words(last, 0),
		record(0),
		record(120, "/tmp"),
		words(refused, "Error", 0, "Error", "no", 0, 0),
		record(120, pathText, nextText),
	}, nil)
	got, err := dial(t, answer).PathInfos(t.Context(), []nix.StorePath{path, path, path, path, path, path})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		info *narstore.PathInfo
		err  string
	}{
		{info: good},
		{err: narstore.ErrNotFound.Error()},
		{err: "NAR size 0"},
		{err: "reference"},
		{err: "nix-daemon says: no"},
		{info: good},
	} {
		if diff := cmp.Diff(want.info, got[i].Info, cmp.AllowUnexported(nix.StorePath{}, narinfo.Signature{})); diff != "" {
			t.Errorf("answer %d differs (-want +got):\n%s", i, diff)
		}
		if (got[i].Err != nil) != (want.err != "") || got[i].Err != nil && !strings.Contains(got[i].Err.Error(), want.err) {
			t.Errorf("answer %d = %v, want error %q", i, got[i].Err, want.err)
		}
	}
}

func TestAllValidPaths(t *testing.T) {
	conn := dial(t, words(last, 3, pathText, "/tmp", nextText))
	paths, malformed, err := conn.AllValidPaths(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) != 2 || paths[0].String() != pathText || paths[1].String() != nextText {
		t.Errorf("AllValidPaths = %v", paths)
	}
	if diff := cmp.Diff([]string{"/tmp"}, malformed); diff != "" {
		t.Errorf("malformed paths differ (-want +got):\n%s", diff)
	}
}

func TestLimits(t *testing.T) {
	const huge = 1 << 40
	for name, answer := range map[string][]byte{
		"too many paths":      words(last, huge, pathText),
		"a path too long":     words(last, 1, huge),
		"padding not zero":    words(last, 1, 1, []byte("a1234567")),
		"an unknown message":  words(0x1234),
		"a call for input":    words(0x64617461, 100),
		"fewer than promised": words(last, 2, pathText),
		"a field of no type":  words(0x52534c54, 1, 2, 1, 9),
		"a log without end":   bytes.Repeat(words(0x6f6c6d67, ""), 70_000),
	} {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, answer)
			if _, _, err := conn.AllValidPaths(t.Context()); err == nil {
				t.Error("AllValidPaths accepts it")
			}
			// What follows an error cannot be told from its remains.
			if _, err := conn.PathFromHashPart(t.Context(), nix.HashPart{}); err == nil {
				t.Error("the connection is still used")
			}
		})
	}
}

// TestCancel: the daemon is silent, and the caller gives up.
func TestCancel(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		io.ReadFull(conn, make([]byte, 8)) // the client's greeting
		cancel()
		<-t.Context().Done()
	}()
	if _, err := daemon.Dial(ctx, socket); !errors.Is(err, context.Canceled) {
		t.Errorf("Dial = %v, want context.Canceled", err)
	}
}

// FuzzConn reads whatever a daemon may answer.
func FuzzConn(f *testing.F) {
	session := bytes.Join([][]byte{greeting, words(last, 1, pathText), record(120, pathText), words(last, pathText)}, nil)
	f.Add(session)
	f.Add(append(bytes.Clone(greeting), words(refused, "Error", 0, "Error", "no", 0, 1, 0, "trace")...))
	f.Add(bytes.Replace(session, words(1<<8|34), words(1<<8|21), 1))
	f.Fuzz(func(t *testing.T, answer []byte) {
		socket, _ := serve(t, answer)
		conn, err := daemon.Dial(t.Context(), socket)
		if err != nil {
			return
		}
		defer conn.Close()
		paths, _, err := conn.AllValidPaths(t.Context())
		if err != nil {
			return
		}
		results, err := conn.PathInfos(t.Context(), paths)
		if err != nil {
			return
		}
		for i, r := range results {
			if r.Err == nil && (r.Info.Path != paths[i] || r.Info.NARSize <= 0) {
				t.Errorf("info of %s = %+v", paths[i], r.Info)
			}
		}
		if path, err := conn.PathFromHashPart(t.Context(), nix.HashPart{}); err == nil && path.IsZero() {
			t.Error("PathFromHashPart returns no path and no error")
		}
	})
}
