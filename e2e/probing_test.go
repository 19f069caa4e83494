package e2e

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/protocol"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/exchange/exchangetest"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
	"github.com/nar-p2p/nar-p2p/p2p/wirepb"
)

// prober asks a daemon in so many bytes.
type prober struct {
	tb   testing.TB
	host host.Host
	of   *lab.Daemon
}

func newProber(tb testing.TB, of *lab.Daemon) *prober {
	tb.Helper()
	h := exchangetest.NewMember(tb, routing.Family("lab"))
	client := exchange.NewClient(h, exchange.ClientConfig{Prefix: routing.Prefix("lab")}, zap.NewNop())
	if err := client.Connect(tb.Context(), of.AddrInfo()); err != nil {
		tb.Fatal(err)
	}
	return &prober{tb, h, of}
}

// ask returns all that is answered, byte for byte, and how the stream ends.
func (p *prober) ask(id protocol.ID, messages ...proto.Message) (answer []byte, end error) {
	p.tb.Helper()
	st, err := p.host.NewStream(p.tb.Context(), p.of.AddrInfo().ID, id)
	if err != nil {
		p.tb.Fatal(err)
	}
	defer st.Reset()
	if _, err := st.Write(exchangetest.Append(nil, messages...)); err != nil {
		p.tb.Fatal(err)
	}
	_ = st.CloseWrite() // The daemon may have answered, and want to hear no more.
	return io.ReadAll(st)
}

// wantAbsent wants a path answered, by each protocol, exactly as one that nobody
// has.
func (p *prober) wantAbsent(name string, k *kept) {
	p.tb.Helper()
	part, absentPart := k.path.HashPart(), sha256.Sum256([]byte("a path that nobody has"))
	absentHash := sha256.Sum256([]byte("a NAR that nobody has"))
	for i, asked := range [][2][]proto.Message{
		{haveOf(k.hash), haveOf(absentHash)},
		{narinfoOf(part), narinfoOf(nix.HashPart(absentPart[:len(part)]))},
		{sessionOf(k.hash), sessionOf(absentHash)},
	} {
		id := exchange.Protocols(routing.Prefix("lab"))[i]
		got, end := p.ask(id, asked[0]...)
		want, wantEnd := p.ask(id, asked[1]...)
		if !bytes.Equal(got, want) || !errors.Is(end, wantEnd) || len(want) == 0 {
			p.tb.Errorf("%s: %s answers %x, %v, and about what nobody has %x, %v", name, id, got, end, want, wantEnd)
		}
	}
}

// haveOf, narinfoOf and sessionOf are what is asked by each protocol.
func haveOf(hash nix.NARHash) []proto.Message {
	return []proto.Message{&wirepb.HaveRequest{NarHashes: [][]byte{hash[:]}}}
}

func narinfoOf(part nix.HashPart) []proto.Message {
	return []proto.Message{&wirepb.NarinfoRequest{HashParts: [][]byte{part[:]}}}
}

func sessionOf(hash nix.NARHash) []proto.Message {
	return []proto.Message{
		&wirepb.NARRequest{Request: &wirepb.NARRequest_Open{Open: &wirepb.Open{NarHash: hash[:]}}},
		&wirepb.NARRequest{Request: &wirepb.NARRequest_GetManifest{GetManifest: &wirepb.GetManifest{}}},
		&wirepb.NARRequest{Request: &wirepb.NARRequest_Run{Run: &wirepb.Run{Lengths: []uint32{1}}}},
	}
}
