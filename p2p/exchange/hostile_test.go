package exchange_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/libp2p/go-libp2p/core/network"
	"go.uber.org/zap/zaptest"
	"google.golang.org/protobuf/proto"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/exchange/exchangetest"
	"github.com/nar-p2p/nar-p2p/p2p/wirepb"
)

// liar returns a client and the ID of a peer that answers every stream with
// play.
func liar(t *testing.T, cfg exchange.ClientConfig, play func(network.Stream)) *pair {
	t.Helper()
	h, from := exchangetest.NewHost(t), exchangetest.NewHost(t)
	for _, id := range exchange.Protocols("") {
		h.SetStreamHandler(id, play)
	}
	exchangetest.Connect(t, from, h)
	return &pair{client: exchange.NewClient(from, cfg, zaptest.NewLogger(t)), from: from, to: h.ID()}
}

// answer writes bytes, and then waits for the client to hang up.
func answer(b []byte) func(network.Stream) {
	return func(st network.Stream) {
		defer st.Close()
		_, _ = st.Write(b)
		_, _ = io.Copy(io.Discard, st)
	}
}

// forever writes the same bytes until the client hangs up.
func forever(first, b []byte) func(network.Stream) {
	return func(st network.Stream) {
		defer st.Reset()
		_, err := st.Write(first)
		for err == nil {
			_, err = st.Write(b)
		}
	}
}

func length(n uint64) []byte { return binary.AppendUvarint(nil, n) }

// TestHostileSessions has servers break the protocol at every point of a
// session on a NAR of 100 bytes, or of 100,000 where there is to be a manifest.
func TestHostileSessions(t *testing.T) {
	opened := exchangetest.Append(nil, response(&wirepb.Opened{}))
	after := func(first []byte, messages ...proto.Message) func(network.Stream) {
		return answer(exchangetest.Append(bytes.Clone(first), messages...))
	}
	zeros := make([]byte, 64<<20)
	chunkOf := func(encoding wirepb.Encoding, b []byte) func(network.Stream) {
		header := response(&wirepb.Chunk{Encoding: encoding, Length: uint32(len(b))})
		return answer(append(exchangetest.Append(bytes.Clone(opened), header), b...))
	}
	raw, zstdEncoding := wirepb.Encoding_ENCODING_RAW, wirepb.Encoding_ENCODING_ZSTD
	piece := func(n int) []byte {
		return exchangetest.Append(nil, response(&wirepb.ManifestPiece{Data: make([]byte, n)}))
	}
	tests := []struct {
		name     string
		play     func(network.Stream)
		manifest bool
		compress bool
	}{
		{name: "length of a terabyte", play: answer(length(1 << 40))},
		{name: "length beyond 63 bits", play: answer(bytes.Repeat([]byte{0xff}, 10))},
		{name: "length not minimal", play: answer([]byte{0x82, 0x00, 0x0a, 0x00})},
		{name: "message one byte too long", play: answer(length(64<<10 + 1<<10 + 1))},
		{name: "not protobuf", play: answer([]byte{3, 0xff, 0xff, 0xff})},
		{name: "no answer at all", play: answer([]byte{0})},
		{name: "chunk instead of opened", play: after(nil, response(&wirepb.Chunk{Encoding: raw, Length: 100}))},
		{name: "opened twice", play: after(opened, response(&wirepb.Opened{}))},
		{name: "root too short", play: after(nil, response(&wirepb.Opened{ManifestRoot: make([]byte, 31)}))},
		{name: "root too long", play: after(nil, response(&wirepb.Opened{ManifestRoot: make([]byte, 33)}))},
		{name: "refused without a reason", play: after(nil, response(&wirepb.Refused{}))},
		{name: "refused for an unknown reason", play: after(nil, response(&wirepb.Refused{Status: 77}))},
		{name: "chunk too short", play: chunkOf(raw, zeros[:99])},
		{name: "chunk too long", play: chunkOf(raw, zeros[:101])},
		{name: "chunk of 4 GiB", play: after(opened, response(&wirepb.Chunk{Encoding: raw, Length: 1<<32 - 1}))},
		{name: "encoding not offered", play: chunkOf(zstdEncoding, pack(zeros[:100]))},
		{name: "encoding unknown", play: chunkOf(9, zeros[:100]), compress: true},
		{name: "zstd longer than the chunk", play: chunkOf(zstdEncoding, zeros[:100]), compress: true},
		{name: "zstd of nothing", play: chunkOf(zstdEncoding, nil), compress: true},
		{name: "zstd broken", play: chunkOf(zstdEncoding, pack(zeros[:100])[1:]), compress: true},
		{name: "zstd of too little", play: chunkOf(zstdEncoding, pack(zeros[:99])), compress: true},
		{name: "zstd bomb", play: chunkOf(zstdEncoding, pack(zeros)[:99]), compress: true},
		{name: "zstd bomb without a size", play: chunkOf(zstdEncoding, packStream(zeros[:1<<20])), compress: true},
		{name: "piece too long", play: forever(opened, piece(64<<10+1)), manifest: true},
		{name: "piece of nothing", play: forever(opened, piece(0)), manifest: true},
		{name: "manifest without end", play: forever(opened, piece(64<<10)), manifest: true},
		{name: "chunk within the manifest", play: after(opened, response(&wirepb.Chunk{Encoding: raw})), manifest: true},
		{name: "manifest end without outcome", play: after(opened, response(&wirepb.ManifestEnd{})), manifest: true},
		{name: "manifest end without root", play: after(opened, response(&wirepb.ManifestEnd{
			Outcome: wirepb.ManifestEnd_OUTCOME_CONFIRMED,
		})), manifest: true},
		{name: "manifest end with another root", play: after(opened, response(&wirepb.ManifestEnd{
			Outcome: wirepb.ManifestEnd_OUTCOME_CONFIRMED, ManifestRoot: make([]byte, 32),
		})), manifest: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := liar(t, exchange.ClientConfig{}, tt.play)
			s := p.open(t, nix.NARHash{1}, tt.compress)
			err := tryHostile(s, tt.manifest)
			if !errors.Is(err, exchange.ErrProtocol) {
				t.Errorf("session ended with %v, want ErrProtocol", err)
			}
		})
	}
}

// tryHostile asks for a manifest, which it does not look into, or for a chunk.
func tryHostile(s *exchange.Session, manifest bool) error {
	if manifest {
		_ = s.AskManifest()
		_, err := s.ReceiveManifest(100_000, func([]byte) error { return nil })
		return err
	}
	c := chunk.Chunk{Length: 100}
	_ = s.Ask([]chunk.Chunk{c})
	return s.Receive(&c, make([]byte, c.Length))
}

func pack(b []byte) []byte {
	e, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	defer e.Close()
	return e.EncodeAll(b, nil)
}

// packStream packs into a frame that does not say how long its content is.
func packStream(b []byte) []byte {
	var out bytes.Buffer
	e, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<10))
	if err != nil {
		panic(err)
	}
	for i := 0; i < len(b); i += 1 << 10 {
		_, _ = e.Write(b[i : i+1<<10])
	}
	_ = e.Close()
	return out.Bytes()
}

// TestTruncatedSessions cuts the recorded session after each of its parts and
// in the middle of each, once by ending the stream and once by silence.
func TestTruncatedSessions(t *testing.T) {
	nar := goldenNAR()
	shelf := &exchangetest.Shelf{}
	hash := shelf.Add(nar)
	var received []byte
	var cuts []int
	for _, v := range readVectors(t, sessionFile) {
		if strings.HasPrefix(v.name, "<") {
			cuts = append(cuts, len(received), len(received)+len(v.data)/2)
			received = append(received, v.data...)
		}
	}
	for _, cut := range cuts {
		t.Run(fmt.Sprintf("at %d", cut), func(t *testing.T) {
			p := liar(t, exchange.ClientConfig{}, func(st network.Stream) {
				_, _ = st.Write(received[:cut])
				_ = st.Close()
			})
			if _, err := tryFetch(p.open(t, hash, false), hash, len(nar)); err == nil {
				t.Error("a cut session succeeded")
			}
			p = liar(t, exchange.ClientConfig{StallTimeout: 20 * time.Millisecond}, answer(received[:cut]))
			s, err := p.client.OpenNAR(t.Context(), p.to, hash, false)
			if err == nil {
				_, err = tryFetch(s, hash, len(nar))
			}
			if err == nil {
				t.Error("a silent session succeeded")
			}
		})
	}
}

func TestHostileHave(t *testing.T) {
	ok := wirepb.Status_STATUS_OK
	holdings := func(n int) []*wirepb.Holding {
		list := make([]*wirepb.Holding, n)
		for i := range list {
			list[i] = &wirepb.Holding{}
		}
		return list
	}
	tests := []struct {
		name string
		play func(network.Stream)
	}{
		{"length of a terabyte", answer(length(1 << 40))},
		{"no status", answer(exchangetest.Append(nil, &wirepb.HaveResponse{Holdings: holdings(1)}))},
		{"too few holdings", answer(exchangetest.Append(nil, &wirepb.HaveResponse{Status: ok}))},
		{"too many holdings", answer(exchangetest.Append(nil, &wirepb.HaveResponse{Status: ok, Holdings: holdings(2)}))},
		{"root too short", answer(exchangetest.Append(nil, &wirepb.HaveResponse{Status: ok, Holdings: []*wirepb.Holding{
			{Held: true, ManifestRoot: make([]byte, 8)},
		}}))},
		{"root of what is not held", answer(exchangetest.Append(nil, &wirepb.HaveResponse{Status: ok, Holdings: []*wirepb.Holding{
			{ManifestRoot: make([]byte, 32)},
		}}))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := liar(t, exchange.ClientConfig{}, tt.play)
			if _, err := p.client.Have(t.Context(), p.to, make([]nix.NARHash, 1)); !errors.Is(err, exchange.ErrProtocol) {
				t.Errorf("Have() = %v, want ErrProtocol", err)
			}
		})
	}
	for name, play := range map[string]func(network.Stream){"silence": answer(nil), "end": func(st network.Stream) { _ = st.Close() }} {
		t.Run(name, func(t *testing.T) {
			p := liar(t, exchange.ClientConfig{QueryTimeout: 20 * time.Millisecond}, play)
			if _, err := p.client.Have(t.Context(), p.to, make([]nix.NARHash, 1)); err == nil {
				t.Error("Have() succeeded")
			}
		})
	}
}

func TestHostileNarinfos(t *testing.T) {
	info := genuine(t)[0]
	record := &wirepb.NarinfoResponse{Status: wirepb.Status_STATUS_OK, Narinfo: info.Bytes()}
	huge := *info
	huge.CA = strings.Repeat("x", 1<<20)
	hugeRecord := &wirepb.NarinfoResponse{Status: wirepb.Status_STATUS_OK, Narinfo: huge.Bytes()}
	part := info.StorePath.HashPart()
	tests := []struct {
		name  string
		parts []nix.HashPart
		play  func(network.Stream)
	}{
		{"length of a terabyte", []nix.HashPart{part}, answer(length(1 << 40))},
		{"length above the limit", []nix.HashPart{part}, answer(length(narinfo.MaxSize + 65))},
		{"no status", []nix.HashPart{part}, answer([]byte{0})},
		{"of another path", []nix.HashPart{{1}}, answer(exchangetest.Append(nil, record))},
		{"malformed", []nix.HashPart{part}, answer(exchangetest.Append(nil, &wirepb.NarinfoResponse{
			Status: wirepb.Status_STATUS_OK, Narinfo: []byte("StorePath: /etc/passwd\n"),
		}))},
		{"more than the budget", []nix.HashPart{part, part, part, part, part, part, part}, answer(exchangetest.Append(nil,
			hugeRecord, hugeRecord, hugeRecord, hugeRecord, hugeRecord, hugeRecord, hugeRecord))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := liar(t, exchange.ClientConfig{}, tt.play)
			if _, err := p.client.Narinfos(t.Context(), p.to, tt.parts); !errors.Is(err, exchange.ErrProtocol) {
				t.Errorf("Narinfos() = %v, want ErrProtocol", err)
			}
		})
	}
}

// TestBusyForLong shows that a peer cannot put us off for ever.
func TestBusyForLong(t *testing.T) {
	p := liar(t, exchange.ClientConfig{}, answer(exchangetest.Append(nil, &wirepb.HaveResponse{
		Status: wirepb.Status_STATUS_BUSY, RetryAfterMs: 1<<32 - 1,
	})))
	_, err := p.client.Have(t.Context(), p.to, make([]nix.NARHash, 1))
	if busy := (*exchange.BusyError)(nil); !errors.As(err, &busy) || busy.RetryAfter > 5*time.Minute {
		t.Errorf("Have() = %v, want busy for 5 minutes at most", err)
	}
}

// TestHostileClients has clients break the protocol. The server answers with a
// reset and goes on serving.
func TestHostileClients(t *testing.T) {
	shelf := &exchangetest.Shelf{}
	nar := exchangetest.Bytes(1, 1000)
	hash := shelf.Add(nar)
	open := request(&wirepb.Open{NarHash: hash[:]})
	run := func(offset uint64, lengths ...uint32) proto.Message {
		return request(&wirepb.Run{Offset: offset, Lengths: lengths})
	}
	hashes := func(n int) *wirepb.HaveRequest {
		r := &wirepb.HaveRequest{}
		for range n {
			r.NarHashes = append(r.NarHashes, hash[:])
		}
		return r
	}
	const have, info, session = 0, 1, 2
	tests := []struct {
		name     string
		protocol int
		sent     []byte
	}{
		{"length of a terabyte", have, length(1 << 40)},
		{"length above the limit", have, length(36<<10 + 1)},
		{"no hashes", have, exchangetest.Append(nil, hashes(0))},
		{"too many hashes", have, exchangetest.Append(nil, hashes(exchange.MaxHashes+1))},
		{"hash too short", have, exchangetest.Append(nil, &wirepb.HaveRequest{NarHashes: [][]byte{hash[:31]}})},
		{"not protobuf", have, []byte{2, 0xff, 0xff}},
		{"length of a terabyte", info, length(1 << 40)},
		{"no hash parts", info, exchangetest.Append(nil, &wirepb.NarinfoRequest{})},
		{"too many hash parts", info, exchangetest.Append(nil, &wirepb.NarinfoRequest{HashParts: make([][]byte, exchange.MaxHashParts+1)})},
		{"hash part too long", info, exchangetest.Append(nil, &wirepb.NarinfoRequest{HashParts: [][]byte{hash[:21]}})},
		{"length above the limit", session, length(1<<10 + 1)},
		{"no request", session, []byte{0}},
		{"run before open", session, exchangetest.Append(nil, run(0, 10))},
		{"manifest before open", session, exchangetest.Append(nil, request(&wirepb.GetManifest{}))},
		{"open twice", session, exchangetest.Append(nil, open, open)},
		{"hash too long", session, exchangetest.Append(nil, request(&wirepb.Open{NarHash: make([]byte, 33)}))},
		{"too many encodings", session, exchangetest.Append(nil, request(&wirepb.Open{
			NarHash: hash[:], Encodings: make([]wirepb.Encoding, 9),
		}))},
		{"run of nothing", session, exchangetest.Append(nil, open, run(0))},
		{"run of too many chunks", session, exchangetest.Append(nil, open, run(0, make([]uint32, exchange.MaxRunChunks+1)...))},
		{"chunk of nothing", session, exchangetest.Append(nil, open, run(0, 10, 0))},
		{"chunk too long", session, exchangetest.Append(nil, open, run(0, chunk.MaxLength+1))},
		{"run past the end", session, exchangetest.Append(nil, open, run(0, 1000, 1))},
		{"run that overflows", session, exchangetest.Append(nil, open, run(1<<64-1, 2))},
		{"run far behind", session, exchangetest.Append(nil, open, run(chunk.MaxNARSize, 2))},
		{"half a message", session, exchangetest.Append(nil, open)[:10]},
	}
	p := newPair(t, shelf, exchange.ServerConfig{})
	for _, tt := range tests {
		t.Run(string(exchange.Protocols("")[tt.protocol])+" "+tt.name, func(t *testing.T) {
			st, err := p.from.NewStream(t.Context(), p.to, exchange.Protocols("")[tt.protocol])
			if err != nil {
				t.Fatal(err)
			}
			defer st.Reset()
			if _, err := st.Write(tt.sent); err != nil {
				t.Fatal(err)
			}
			_ = st.CloseWrite()
			if _, err := io.ReadAll(st); !errors.Is(err, network.ErrReset) {
				t.Errorf("the stream ended with %v, want a reset", err)
			}
		})
	}
	if got := fetch(t, p.open(t, hash, false), hash, len(nar)); !bytes.Equal(got, nar) {
		t.Error("fetched other bytes than those of the NAR")
	}
}

// TestEndWithoutRequest shows that a client may leave at any time.
func TestEndWithoutRequest(t *testing.T) {
	p := newPair(t, &exchangetest.Shelf{}, exchange.ServerConfig{})
	st, err := p.from.NewStream(t.Context(), p.to, exchange.Protocols("")[2])
	if err != nil {
		t.Fatal(err)
	}
	defer st.Reset()
	if err := st.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(st); err != nil || len(b) > 0 {
		t.Errorf("read %x, %v, want the end", b, err)
	}
}

// TestSlowClients has clients that do not ask, and ones that do not read. The
// server is rid of both before it is stopped, which waits for all streams.
func TestSlowClients(t *testing.T) {
	shelf := &exchangetest.Shelf{}
	hash := shelf.Add(exchangetest.Bytes(1, 10<<20))
	ask := exchangetest.Append(nil, request(&wirepb.Open{NarHash: hash[:]}))
	var run wirepb.Run
	for range 40 {
		run.Lengths = append(run.Lengths, chunk.MaxSize)
	}
	greedy := bytes.Clone(ask)
	for range 10 { // 100 MiB, more than any window
		greedy = exchangetest.Append(greedy, request(&run))
	}
	for name, sent := range map[string][]byte{"not asking": ask, "not reading": greedy} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, shelf, exchange.ServerConfig{
				IdleTimeout: 50 * time.Millisecond, WriteTimeout: 50 * time.Millisecond, DrainTimeout: time.Hour,
			})
			st, err := p.from.NewStream(t.Context(), p.to, exchange.Protocols("")[2])
			if err != nil {
				t.Fatal(err)
			}
			defer st.Reset()
			if _, err := st.Write(sent); err != nil {
				t.Fatal(err)
			}
			var answer wirepb.NARResponse // the session has begun
			if err := exchangetest.Read(bufio.NewReaderSize(st, 16), &answer); err != nil {
				t.Fatal(err)
			}
			p.stop()
		})
	}
}
