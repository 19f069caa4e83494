package exchange

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/exchange/exchangetest"
	"github.com/nar-p2p/nar-p2p/p2p/wirepb"
)

// memoryStream is a stream whose other end has said all it will say.
type memoryStream struct {
	network.Stream // nil: nothing else is called
	in             io.Reader
	out            bytes.Buffer
}

func (s *memoryStream) Read(p []byte) (int, error)       { return s.in.Read(p) }
func (s *memoryStream) Write(p []byte) (int, error)      { return s.out.Write(p) }
func (s *memoryStream) Close() error                     { return nil }
func (s *memoryStream) Reset() error                     { return nil }
func (s *memoryStream) SetDeadline(time.Time) error      { return nil }
func (s *memoryStream) SetReadDeadline(time.Time) error  { return nil }
func (s *memoryStream) SetWriteDeadline(time.Time) error { return nil }
func (s *memoryStream) Conn() network.Conn               { return memoryConn{} }

type memoryConn struct{ network.Conn }

func (memoryConn) RemotePeer() peer.ID           { return "peer" }
func (memoryConn) RemoteMultiaddr() ma.Multiaddr { return nil }
func (memoryConn) IsClosed() bool                { return false }

// callOn returns a call of the stream's that has a slot.
func callOn(server *Server, st *memoryStream) *call {
	c := &call{stream: st, in: newInbox(st, queryBuffer), out: &outbox{stream: st}}
	c.slot, _, _ = server.sessions.take(c.holder, func() {})
	return c
}

// serveMemory serves a NAR session, one that compresses where it may.
func serveMemory(ctx context.Context, server *Server, st *memoryStream) error {
	n := shownNAR{Server: server, call: callOn(server, st), line: newLine(true)}
	defer n.slot.release()
	defer n.close()
	return n.serve(ctx)
}

// seed adds the golden vectors, each alone and the session's sides as a whole.
func seed(f *testing.F) {
	f.Helper()
	sides := map[byte][]byte{}
	count := 0
	for _, file := range []string{"testdata/messages.txt", "testdata/session.txt"} {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			name, digits, _ := strings.Cut(strings.TrimSpace(line), ": ")
			if data, err := hex.DecodeString(digits); err == nil && len(data) > 0 {
				f.Add(data)
				sides[name[0]] = append(sides[name[0]], data...)
				count++
			}
		}
	}
	f.Add(sides['>'])
	f.Add(sides['<'])
	if count < 20 || len(sides['>']) == 0 || len(sides['<']) == 0 {
		f.Fatalf("%d seeds, want those of the golden files", count)
	}
}

// FuzzServer sends bytes to all three services. Whatever they make of them,
// they must not panic, and a session must say no more than its requests can
// ask for.
func FuzzServer(f *testing.F) {
	seed(f)
	shelf := &exchangetest.Shelf{}
	hash := shelf.Add(exchangetest.Bytes(1, 100_000))
	shelf.AddAs(nix.NARHash{}, exchangetest.Bytes(1, 20_000)) // corrupt
	f.Add(exchangetest.Append(nil,
		&wirepb.NARRequest{Request: &wirepb.NARRequest_Open{Open: &wirepb.Open{NarHash: hash[:], Encodings: []wirepb.Encoding{2}}}},
		&wirepb.NARRequest{Request: &wirepb.NARRequest_GetManifest{GetManifest: &wirepb.GetManifest{}}},
		&wirepb.NARRequest{Request: &wirepb.NARRequest_Run{Run: &wirepb.Run{Offset: 10, Lengths: []uint32{1, 2, 3}}}}))
	server := NewServer(nil, shelf, ServerConfig{Work: 10 * time.Minute}, zap.NewNop()) // more than there is
	f.Fuzz(func(t *testing.T, data []byte) {
		serve := func(f func(context.Context, *call) error) {
			c := callOn(server, &memoryStream{in: bytes.NewReader(data)})
			defer c.slot.release()
			_ = f(t.Context(), c)
		}
		serve(server.serveHave)
		serve(server.serveNarinfo)
		st := &memoryStream{in: bytes.NewReader(data)}
		err := serveMemory(t.Context(), server, st)
		// A request takes 4 bytes at least, and gets 100,000 bytes at most and what
		// is around them.
		if got, limit := st.out.Len(), len(data)/4*110_000+1000; got > limit {
			t.Errorf("%d bytes of requests got %d bytes of answers, %v", len(data), got, err)
		}
	})
}

// FuzzClient gives bytes to a client as a server's answers. What it accepts is
// what it asked for.
func FuzzClient(f *testing.F) {
	seed(f)
	nar := exchangetest.Bytes(1, 20_000)
	shelf := &exchangetest.Shelf{}
	hash := shelf.Add(nar)
	server := NewServer(nil, shelf, ServerConfig{}, zap.NewNop())
	for _, compress := range []bool{false, true} { // what an honest server says
		open := &wirepb.Open{NarHash: hash[:]}
		if compress {
			open.Encodings = []wirepb.Encoding{wirepb.Encoding_ENCODING_ZSTD}
		}
		st := &memoryStream{in: bytes.NewReader(exchangetest.Append(nil,
			&wirepb.NARRequest{Request: &wirepb.NARRequest_Open{Open: open}},
			&wirepb.NARRequest{Request: &wirepb.NARRequest_GetManifest{GetManifest: &wirepb.GetManifest{}}},
			&wirepb.NARRequest{Request: &wirepb.NARRequest_Run{Run: &wirepb.Run{Lengths: []uint32{20_000}}}}))}
		if err := serveMemory(f.Context(), server, st); !errors.Is(err, io.EOF) {
			f.Fatal(err)
		}
		f.Add(st.out.Bytes())
	}
	decoder := newDecoder()
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, compress := range []bool{false, true} {
			st := &memoryStream{in: bytes.NewReader(data)}
			s := &Session{
				stream: st, in: newInbox(st, sessionBuffer), out: outbox{stream: st},
				decoder: decoder, mayBeZstd: compress, release: func() {},
			}
			tryClient(t, s, hash, nar)
		}
		in := func() *inbox { return newInbox(&memoryStream{in: bytes.NewReader(data)}, queryBuffer) }
		if holdings, err := readHoldings(in(), 3); err == nil && len(holdings) != 3 {
			t.Errorf("%d holdings for 3 hashes", len(holdings))
		}
		parts := []nix.HashPart{{1}, {2}}
		if infos, err := readNarinfos(in(), parts); err == nil {
			for i, info := range infos {
				if info != nil && info.StorePath.HashPart() != parts[i] {
					t.Errorf("record of %s, asked for %s", info.StorePath, parts[i])
				}
			}
		}
	})
}

// tryClient asks for the manifest of a NAR and for its bytes as one chunk.
func tryClient(t *testing.T, s *Session, hash nix.NARHash, nar []byte) {
	t.Helper()
	total := int64(0)
	sum := sha256.New()
	_ = s.AskManifest()
	root, err := s.ReceiveManifest(int64(len(nar)), func(piece []byte) error {
		total += int64(len(piece))
		sum.Write(piece)
		return nil
	})
	if limit := chunk.MaxEncodedSize(int64(len(nar))); total > limit {
		t.Errorf("manifest of %d bytes, at most %d allowed", total, limit)
	}
	if err == nil && root != chunk.Root(sum.Sum(nil)) {
		t.Errorf("root %s is not that of the pieces", root)
	}
	got := make([]byte, len(nar))
	c := chunk.Chunk{Length: len(nar), Sum: chunk.Sum(hash)}
	_ = s.Ask([]chunk.Chunk{c})
	if err := s.Receive(&c, got); err == nil && !bytes.Equal(got, nar) {
		t.Error("received other bytes than those asked for")
	}
}

// FuzzMessage reads bytes as each message. What is accepted is the same when
// it is written and read again.
func FuzzMessage(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, m := range []proto.Message{
			&wirepb.HaveRequest{}, &wirepb.HaveResponse{}, &wirepb.NarinfoRequest{}, &wirepb.NarinfoResponse{},
			&wirepb.NARRequest{}, &wirepb.NARResponse{},
		} {
			const limit = 1 << 10
			var buf bytes.Buffer
			if err := readMessage(bufio.NewReader(bytes.NewReader(data)), &buf, m, limit); err != nil {
				continue
			}
			if proto.Size(m) > limit {
				t.Errorf("message of %d bytes, at most %d allowed", proto.Size(m), limit)
			}
			again := m.ProtoReflect().New().Interface()
			if err := readMessage(bufio.NewReader(bytes.NewReader(appendMessage(nil, m))), &buf, again, limit); err != nil {
				t.Errorf("written and read again: %v", err)
			}
			if !proto.Equal(m, again) {
				t.Errorf("%v became %v", m, again)
			}
		}
	})
}
