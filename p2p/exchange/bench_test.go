package exchange_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nar"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/exchange/exchangetest"
	"github.com/nar-p2p/nar-p2p/p2p/wirepb"
)

// fileShelf has the NAR of one file, which it reads from the disk.
type fileShelf struct {
	exchangetest.Shelf
	path string
}

func (s *fileShelf) Held(nix.NARHash) (root chunk.Root, rootKnown, held bool) {
	return chunk.Root{}, false, true
}

func (s *fileShelf) Open(ctx context.Context, _ nix.NARHash) (narstore.NAR, error) {
	return nar.Open(ctx, s.path)
}

const benchSize = 128 << 20

// BenchmarkServe has a client that does nothing but read, unchecked, beside the
// same bytes over bare streams: what lies between the two is the price of serving.
func BenchmarkServe(b *testing.B) {
	path := filepath.Join(b.TempDir(), "file")
	if err := os.WriteFile(path, exchangetest.Bytes(1, benchSize), 0o644); err != nil {
		b.Fatal(err)
	}
	for _, streams := range []int{1, 8} {
		b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) {
			h := exchangetest.NewHost(b)
			server := exchange.NewServer(h, &fileShelf{path: path}, exchange.ServerConfig{}, zap.NewNop())
			exchangetest.Run(b, h, server, exchange.Protocols("")[2])
			benchmarkStreams(b, h, streams, readChunks)
		})
		b.Run(fmt.Sprintf("bare=%d", streams), func(b *testing.B) {
			h := exchangetest.NewHost(b)
			h.SetStreamHandler(exchange.Protocols("")[2], func(st network.Stream) {
				buf := exchangetest.Bytes(1, 128<<10)
				for range benchSize / len(buf) {
					if _, err := st.Write(buf); err != nil {
						_ = st.Reset()
						return
					}
				}
				_ = st.Close()
			})
			benchmarkStreams(b, h, streams, readAll)
		})
	}
}

// benchmarkStreams reads benchSize bytes in all over so many streams at once.
func benchmarkStreams(b *testing.B, from host.Host, streams int, read func(st network.Stream, size int) error) {
	b.Helper()
	h := exchangetest.NewHost(b)
	exchangetest.Connect(b, h, from)
	b.SetBytes(benchSize)
	for b.Loop() {
		var g errgroup.Group
		for range streams {
			g.Go(func() error {
				st, err := h.NewStream(b.Context(), from.ID(), exchange.Protocols("")[2])
				if err != nil {
					return err
				}
				defer st.Reset()
				return read(st, benchSize/streams)
			})
		}
		if err := g.Wait(); err != nil {
			b.Fatal(err)
		}
	}
}

// readAll reads bytes as they are.
func readAll(st network.Stream, size int) error {
	if _, err := st.Write([]byte{0}); err != nil { // so that the other side hears of it
		return err
	}
	_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{io.LimitReader(st, int64(size))}, make([]byte, 128<<10))
	return err
}

// readChunks asks for chunks of average size, some runs ahead, and reads them.
func readChunks(st network.Stream, size int) error {
	const runs, chunks = 8, 16
	ask := func(offset int) error {
		if offset >= size {
			return nil
		}
		run := &wirepb.Run{Offset: uint64(offset)}
		for range chunks {
			run.Lengths = append(run.Lengths, chunk.AvgSize)
		}
		_, err := st.Write(exchangetest.Append(nil, request(run)))
		return err
	}
	if _, err := st.Write(exchangetest.Append(nil, request(&wirepb.Open{NarHash: make([]byte, 32)}))); err != nil {
		return err
	}
	for i := range runs {
		if err := ask(i * chunks * chunk.AvgSize); err != nil {
			return err
		}
	}
	r := bufio.NewReaderSize(st, 64<<10)
	body := make([]byte, chunk.AvgSize)
	if err := exchangetest.Read(r, &wirepb.NARResponse{}); err != nil {
		return err
	}
	for offset := 0; offset < size; offset += chunk.AvgSize {
		if err := exchangetest.Read(r, &wirepb.NARResponse{}); err != nil {
			return err
		}
		if _, err := io.ReadFull(r, body); err != nil {
			return err
		}
		if offset%(chunks*chunk.AvgSize) == 0 {
			if err := ask(offset + runs*chunks*chunk.AvgSize); err != nil {
				return err
			}
		}
	}
	return nil
}

// BenchmarkSlowLine fetches text, of which zstd makes about a fifth, over lines
// of so many bytes per second, and one that is as fast as the machine.
func BenchmarkSlowLine(b *testing.B) {
	text := wordsOf(32 << 20)
	shelf := &exchangetest.Shelf{}
	hash := shelf.Add(text)
	settle(b, shelf, hash)
	for _, perSecond := range []float64{6.25e6, 30e6, 118e6, 1e12} {
		b.Run(fmt.Sprintf("MB/s=%v", perSecond/1e6), func(b *testing.B) {
			h := exchangetest.NewHost(b)
			server := exchange.NewServer(h, shelf, exchange.ServerConfig{}, zap.NewNop())
			exchangetest.Run(b, h, server, exchange.Protocols("")[2])
			from := exchangetest.NewHost(b)
			if err := from.Connect(b.Context(), peer.AddrInfo{ID: h.ID(), Addrs: []ma.Multiaddr{throttle(b, h, perSecond)}}); err != nil {
				b.Fatal(err)
			}
			client := exchange.NewClient(from, exchange.ClientConfig{}, zap.NewNop())
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				s, err := client.OpenNAR(b.Context(), h.ID(), hash, true)
				if err != nil {
					b.Fatal(err)
				}
				if err := receiveAll(b.Context(), s, hash, len(text), func(int) {}); err != nil {
					b.Fatal(err)
				}
				_ = s.Close()
			}
			stats := server.Stats()
			b.ReportMetric(float64(stats.BytesServed)/float64(stats.Sessions)/float64(len(text)), "sent/byte")
		})
	}
}

// wordsOf returns text of random words.
func wordsOf(size int) []byte {
	random := rand.New(rand.NewChaCha8([32]byte{1}))
	words := make([]string, 300)
	for i := range words {
		words[i] = fmt.Sprintf("%x ", random.Uint64()>>(8*(i%7)))
	}
	text := make([]byte, 0, size+16)
	for len(text) < size {
		text = append(text, words[random.IntN(len(words))]...)
	}
	return text
}

// throttle returns an address at which h is reached, and from which bytes come
// no faster than so many per second.
func throttle(b *testing.B, h host.Host, perSecond float64) ma.Multiaddr {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	target, err := manet.ToNetAddr(h.Addrs()[0])
	if err != nil {
		b.Fatal(err)
	}
	limiter := rate.NewLimiter(rate.Limit(perSecond), 256<<10)
	pass := func(from, to net.Conn, limited bool) {
		defer to.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			if limited {
				_ = limiter.WaitN(context.Background(), n)
			}
			if _, writeErr := to.Write(buf[:n]); err != nil || writeErr != nil {
				return
			}
		}
	}
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", target.String())
			if err != nil {
				_ = near.Close()
				continue
			}
			go pass(near, far, false)
			go pass(far, near, true)
		}
	}()
	addr, err := manet.FromNetAddr(l.Addr())
	if err != nil {
		b.Fatal(err)
	}
	return addr
}
