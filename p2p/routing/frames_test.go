package routing_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"

	"github.com/nar-p2p/nar-p2p/p2p/exchange/exchangetest"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

// A length is refused as soon as it is read, before there is memory for the message;
// messages of up to 32 KiB are answered, any number of them on one stream.
func TestLongMessagesOfTheDHTAreRefused(t *testing.T) {
	server, client := exchangetest.NewHost(t), exchangetest.NewHost(t)
	dht, err := routing.Join(routing.Paced(server), &routing.Config{
		Network: "team", Role: routing.Server,
		Announced: func(addrs []ma.Multiaddr) []ma.Multiaddr { return addrs },
		Datastore: func(string) ds.Batching { return dssync.MutexWrap(ds.NewMapDatastore()) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dht.Close(); err != nil {
			t.Error(err)
		}
	})
	exchangetest.Connect(t, client, server)
	question := func(size int) []byte {
		text, err := proto.Marshal(&pb.Message{Type: pb.Message_GET_PROVIDERS, Key: bytes.Repeat([]byte{1}, 32)})
		if err != nil {
			t.Fatal(err)
		}
		// A field that nobody knows makes up the length.
		if fill := size - len(text) - 4; fill > 0 {
			text = append(text, 0xfa, 0x7f)
			text = binary.AppendUvarint(text, uint64(fill-1))
			text = append(text, make([]byte, size-len(text))...)
		}
		return append(binary.AppendUvarint(nil, uint64(len(text))), text...)
	}
	for name, tt := range map[string]struct {
		sent     []byte
		answered bool
	}{
		"short":                       {question(0), true},
		"as long as may be":           {question(32 << 10), true},
		"many":                        {bytes.Repeat(question(20<<10), 5), true},
		"too long":                    {binary.AppendUvarint(nil, 32<<10+1), false},
		"4 MiB":                       {binary.AppendUvarint(nil, 4<<20), false},
		"too long behind another one": {append(question(100), binary.AppendUvarint(nil, 1<<20)...), false},
		"a length without end":        {bytes.Repeat([]byte{0x80}, 5), false},
	} {
		t.Run(name, func(t *testing.T) {
			st, err := client.NewStream(t.Context(), server.ID(), routing.Prefix("team")+"/kad/1.0.0")
			if err != nil {
				t.Fatal(err)
			}
			defer st.Reset()
			// By itself the DHT waits for a minute for what is missing.
			if err := st.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := st.Write(tt.sent); err != nil {
				t.Fatal(err)
			}
			if tt.answered {
				_ = st.CloseWrite()
			}
			answer, err := io.ReadAll(st)
			if tt.answered && (err != nil || len(answer) == 0) || !tt.answered && !errors.Is(err, network.ErrReset) {
				t.Errorf("%d bytes, %v; want an answer: %t", len(answer), err, tt.answered)
			}
		})
	}
}
