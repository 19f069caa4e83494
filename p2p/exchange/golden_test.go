package exchange_test

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/network"
	"go.uber.org/zap/zaptest"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/exchange/exchangetest"
	"github.com/nar-p2p/nar-p2p/p2p/wirepb"
)

// The files in testdata freeze what is on the wire. They may change only with
// the version of a protocol.
var update = flag.Bool("update", false, "write the golden files anew")

const (
	messagesFile = "testdata/messages.txt"
	sessionFile  = "testdata/session.txt"
)

// vector is a line of a golden file: a name and bytes.
type vector struct {
	name string
	data []byte
	// as is what is written instead of the bytes; "" writes them as hexadecimal.
	as string
}

func readVectors(t *testing.T, file string) []vector {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, _ := strings.Cut(line, ": ")
		vectors = append(vectors, vector{name: name, data: parseVector(t, value)})
	}
	return vectors
}

// parseVector parses hexadecimal bytes, or "nar[<from>:<to>]" for bytes of
// goldenNAR.
func parseVector(t *testing.T, value string) []byte {
	t.Helper()
	var from, to int
	if n, _ := fmt.Sscanf(value, "nar[%d:%d]", &from, &to); n == 2 {
		return goldenNAR()[from:to]
	}
	data, err := hex.DecodeString(value)
	if err != nil {
		t.Fatalf("vector %.80s: %v", value, err)
	}
	return data
}

func writeVectors(t *testing.T, file, comment string, vectors []vector) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n", comment)
	for _, v := range vectors {
		fmt.Fprintf(&b, "%s: %s\n", v.name, cmp.Or(v.as, hex.EncodeToString(v.data)))
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// fill returns n bytes that count up from first.
func fill(first byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

func request(r any) proto.Message {
	switch r := r.(type) {
	case *wirepb.Open:
		return &wirepb.NARRequest{Request: &wirepb.NARRequest_Open{Open: r}}
	case *wirepb.GetManifest:
		return &wirepb.NARRequest{Request: &wirepb.NARRequest_GetManifest{GetManifest: r}}
	case *wirepb.Run:
		return &wirepb.NARRequest{Request: &wirepb.NARRequest_Run{Run: r}}
	default:
		panic("not a request")
	}
}

func response(r any) proto.Message {
	switch r := r.(type) {
	case *wirepb.Opened:
		return &wirepb.NARResponse{Response: &wirepb.NARResponse_Opened{Opened: r}}
	case *wirepb.Refused:
		return &wirepb.NARResponse{Response: &wirepb.NARResponse_Refused{Refused: r}}
	case *wirepb.ManifestPiece:
		return &wirepb.NARResponse{Response: &wirepb.NARResponse_ManifestPiece{ManifestPiece: r}}
	case *wirepb.ManifestEnd:
		return &wirepb.NARResponse{Response: &wirepb.NARResponse_ManifestEnd{ManifestEnd: r}}
	case *wirepb.Chunk:
		return &wirepb.NARResponse{Response: &wirepb.NARResponse_Chunk{Chunk: r}}
	default:
		panic("not a response")
	}
}

func TestGoldenMessages(t *testing.T) {
	const (
		ok, notHeld, busy = wirepb.Status_STATUS_OK, wirepb.Status_STATUS_NOT_HELD, wirepb.Status_STATUS_BUSY
		raw, zstd         = wirepb.Encoding_ENCODING_RAW, wirepb.Encoding_ENCODING_ZSTD
		confirmed         = wirepb.ManifestEnd_OUTCOME_CONFIRMED
		corrupt           = wirepb.ManifestEnd_OUTCOME_CORRUPT
	)
	tests := []struct {
		name    string
		message proto.Message
	}{
		{"have request", &wirepb.HaveRequest{NarHashes: [][]byte{fill(0, 32), fill(32, 32)}}},
		{"have response", &wirepb.HaveResponse{Status: ok, Holdings: []*wirepb.Holding{
			{}, {Held: true}, {Held: true, ManifestRoot: fill(64, 32)},
		}}},
		{"have response, busy", &wirepb.HaveResponse{Status: busy, RetryAfterMs: 2000}},
		{"narinfo request", &wirepb.NarinfoRequest{HashParts: [][]byte{fill(0, 20), fill(20, 20)}}},
		{"narinfo response", &wirepb.NarinfoResponse{Status: ok, Narinfo: []byte("StorePath: ...\n")}},
		{"narinfo response, not held", &wirepb.NarinfoResponse{Status: notHeld}},
		{"narinfo response, busy", &wirepb.NarinfoResponse{Status: busy, RetryAfterMs: 2000}},
		{"open", request(&wirepb.Open{NarHash: fill(0, 32)})},
		{"open, zstd", request(&wirepb.Open{NarHash: fill(0, 32), Encodings: []wirepb.Encoding{zstd}})},
		{"get manifest", request(&wirepb.GetManifest{})},
		{"run", request(&wirepb.Run{Offset: 1 << 33, Lengths: []uint32{16384, 70000, 262177}})},
		{"run from the beginning", request(&wirepb.Run{Lengths: []uint32{96}})},
		{"opened", response(&wirepb.Opened{})},
		{"opened, root known", response(&wirepb.Opened{ManifestRoot: fill(64, 32)})},
		{"refused, not held", response(&wirepb.Refused{Status: notHeld})},
		{"refused, busy", response(&wirepb.Refused{Status: busy, RetryAfterMs: 2000})},
		{"manifest piece", response(&wirepb.ManifestPiece{Data: fill(0, 40)})},
		{"manifest end, confirmed", response(&wirepb.ManifestEnd{Outcome: confirmed, ManifestRoot: fill(64, 32)})},
		{"manifest end, corrupt", response(&wirepb.ManifestEnd{Outcome: corrupt})},
		{"chunk, raw", response(&wirepb.Chunk{Encoding: raw, Length: 16384})},
		{"chunk, zstd", response(&wirepb.Chunk{Encoding: zstd, Length: 300})},
	}
	if *update {
		vectors := make([]vector, len(tests))
		for i, tt := range tests {
			vectors[i] = vector{name: tt.name, data: exchangetest.Append(nil, tt.message)}
		}
		writeVectors(t, messagesFile, "One of each message, behind its length.", vectors)
	}
	vectors := readVectors(t, messagesFile)
	if len(vectors) != len(tests) {
		t.Fatalf("%d vectors for %d messages", len(vectors), len(tests))
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := vectors[i]
			if got := exchangetest.Append(nil, tt.message); v.name != tt.name || !bytes.Equal(got, v.data) {
				t.Errorf("encoding = %x, want %s: %x", got, v.name, v.data)
			}
			got := tt.message.ProtoReflect().New().Interface()
			if err := exchangetest.Read(bufio.NewReader(bytes.NewReader(v.data)), got); err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(tt.message, got, protocmp.Transform()); diff != "" {
				t.Errorf("decoding (-want +got)\n%s", diff)
			}
		})
	}
}

// goldenNAR is the NAR of the recorded session: the sha-256 of "golden 0", that
// of "golden 1" and so on, cut at 300,000 bytes, with a store path at 1,000 so
// that its manifest has masked fields.
func goldenNAR() []byte {
	var b []byte
	for i := 0; len(b) < 300_000; i++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "golden %d", i))
		b = append(b, sum[:]...)
	}
	copy(b[1000:], "/nix/store/00bgd045z0d4icpbc2yyz4gx48ak44la-net-tools")
	return b[:300_000]
}

// TestGoldenSession plays a recorded session against the server and against the
// client. Lines with ">" are the client's, with "<" the server's.
func TestGoldenSession(t *testing.T) {
	if *update {
		recordSession(t)
	}
	var sent, received []byte
	for _, v := range readVectors(t, sessionFile) {
		if strings.HasPrefix(v.name, ">") {
			sent = append(sent, v.data...)
		} else {
			received = append(received, v.data...)
		}
	}
	t.Run("server", func(t *testing.T) {
		if got := playClient(t, sent); !bytes.Equal(got, received) {
			t.Errorf("the server answered\n%x\nwant\n%x", got, received)
		}
	})
	t.Run("client", func(t *testing.T) {
		if got := playServer(t, len(sent), received); !bytes.Equal(got, sent) {
			t.Errorf("the client asked\n%x\nwant\n%x", got, sent)
		}
	})
}

// playClient sends bytes to a server and returns its answers.
func playClient(t *testing.T, sent []byte) []byte {
	t.Helper()
	shelf := &exchangetest.Shelf{}
	shelf.Add(goldenNAR())
	p := newPair(t, shelf, exchange.ServerConfig{})
	st, err := p.from.NewStream(t.Context(), p.to, exchange.Protocols("")[2])
	if err != nil {
		t.Fatal(err)
	}
	defer st.Reset()
	if _, err := st.Write(sent); err != nil {
		t.Fatal(err)
	}
	if err := st.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(st)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// playServer answers a client with bytes and returns the size bytes that it
// sent.
func playServer(t *testing.T, size int, answers []byte) []byte {
	t.Helper()
	nar := goldenNAR()
	shelf := &exchangetest.Shelf{}
	hash := shelf.Add(nar)
	h, from := exchangetest.NewHost(t), exchangetest.NewHost(t)
	got := make(chan []byte, 1)
	h.SetStreamHandler(exchange.Protocols("")[2], func(st network.Stream) {
		defer st.Close()
		_, _ = st.Write(answers)
		sent := make([]byte, size)
		n, _ := io.ReadFull(st, sent)
		got <- sent[:n]
	})
	exchangetest.Connect(t, from, h)
	client := exchange.NewClient(from, exchange.ClientConfig{}, zaptest.NewLogger(t))
	s, err := client.OpenNAR(t.Context(), h.ID(), hash, false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if b := fetch(t, s, hash, len(nar)); !bytes.Equal(b, nar) {
		t.Error("fetched other bytes than those of the NAR")
	}
	return <-got
}

// recordSession records what client and server say to each other.
func recordSession(t *testing.T) {
	t.Helper()
	nar := goldenNAR()
	shelf := &exchangetest.Shelf{}
	hash := shelf.Add(nar)
	var encoded []byte
	root, err := shelf.Manifest(t.Context(), hash, func(b []byte) error { encoded = append(encoded, b...); return nil })
	if err != nil {
		t.Fatal(err)
	}
	m, err := chunk.Decode(encoded, hash, int64(len(nar)))
	if err != nil {
		t.Fatal(err)
	}
	message := func(name string, m proto.Message) vector {
		return vector{name: name, data: exchangetest.Append(nil, m)}
	}
	run := &wirepb.Run{}
	answers := []vector{
		message("< opened", response(&wirepb.Opened{})),
		message("< manifest piece", response(&wirepb.ManifestPiece{Data: encoded})),
		message("< manifest end", response(&wirepb.ManifestEnd{
			Outcome: wirepb.ManifestEnd_OUTCOME_CONFIRMED, ManifestRoot: root[:],
		})),
	}
	for _, c := range m.Chunks {
		length := uint32(c.Length)
		run.Lengths = append(run.Lengths, length)
		answers = append(answers,
			message("< chunk", response(&wirepb.Chunk{Encoding: wirepb.Encoding_ENCODING_RAW, Length: length})),
			vector{name: "< its bytes", as: fmt.Sprintf("nar[%d:%d]", c.Offset, c.Offset+int64(c.Length))})
	}
	writeVectors(t, sessionFile, "A session of nar/1 on the NAR of goldenNAR, whose manifest is not known when it begins.", append([]vector{
		message("> open", request(&wirepb.Open{NarHash: hash[:]})),
		message("> get manifest", request(&wirepb.GetManifest{})),
		message("> run", request(run)),
	}, answers...))
}
