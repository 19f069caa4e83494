package e2e

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/crypto"
	libp2phost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/zap"
	_ "modernc.org/sqlite" // the "sqlite" driver

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/host"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

// A whole store is announced; a restart sends nothing again; a path that is
// registered is announced, and one that is collected is offered no more.
func TestStoreIsAnnounced(t *testing.T) {
	const paths, count = 300, 8
	store := newMadeUpStore(t, paths)
	s := startServers(t, count, store.bootstrap, dssync.MutexWrap)
	d := store.daemon("announcer")
	d.WaitAnnounced(paths)
	// What has been sent has not been read yet.
	store.WaitFor("all records to arrive", func() bool { return s.records() == 2*paths*count })
	store.expectAt(s, count, store.paths)

	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	fresh := store.add(1)
	d.Start()
	store.WaitFor("the records of the new path, and no others, to arrive", func() bool { return s.records() == 2*(paths+1)*count })
	store.expectAt(s, count, fresh)
	fresh = store.add(1)
	store.WaitFor("those of another, registered just now", func() bool { return s.records() == 2*(paths+2)*count })
	store.expectAt(s, count, fresh)

	gone := store.paths[0]
	if !s.asks(t, d, gone) {
		t.Errorf("%s is shared, but not offered", gone.Path)
	}
	store.remove(gone)
	store.WaitFor("the collected path to be announced no more", func() bool {
		return d.Status().P2P.Announcing.Keys == 2*(paths+1)
	})
	if s.asks(t, d, gone) {
		t.Errorf("%s was collected, and is still offered", gone.Path)
	}
	if got, want := s.records(), 2*(paths+2)*count; got != want {
		t.Errorf("%d records were sent in the end, want %d", got, want)
	}
}

// BenchmarkAnnounceStore measures what docs/scale.md says of a large store: a
// node that announces 100,000 paths to 40 servers, and is started again.
func BenchmarkAnnounceStore(b *testing.B) {
	const paths, count = 100_000, 40
	for b.Loop() {
		store := newMadeUpStore(b, paths)
		// Each of 1,600,000 records would take the servers' memory.
		s := startServers(b, count, store.bootstrap, newSample)
		lookups := s.messages(pb.Message_FIND_NODE)
		start := time.Now()
		d := store.daemon("announcer")
		store.await(d, "the store to be read", func() bool { return d.Status().Store.Shareable == paths })
		read := time.Now()
		store.await(d, "the store to be announced", func() bool { return announced(d, paths) })
		b.ReportMetric(read.Sub(start).Seconds(), "s-to-read")
		b.ReportMetric(time.Since(read).Seconds(), "s-to-announce")

		time.Sleep(3 * time.Minute) // It gives memory back once a minute.
		b.ReportMetric(float64(s.records()), "records")
		b.ReportMetric(float64(d.Status().P2P.Announcing.SentBytes)/1e6, "MB-sent")
		b.ReportMetric(float64(s.messages(pb.Message_FIND_NODE)-lookups), "lookup-messages")
		peak, resting := d.Memory()
		b.ReportMetric(peak, "MiB-peak")
		b.ReportMetric(resting.Total, "MiB-resting")
		b.ReportMetric(resting.Anonymous, "MiB-resting-without-files")

		sent := s.records()
		if err := d.Stop(); err != nil {
			b.Fatal(err)
		}
		start = time.Now()
		d.Start()
		store.await(d, "the store to be read again", func() bool { return announced(d, paths) })
		b.ReportMetric(time.Since(start).Seconds(), "s-to-read-again")
		time.Sleep(time.Minute)
		b.ReportMetric(float64(s.records()-sent), "records-after-restart")
	}
}

// announced reports whether a daemon has nothing left to announce.
func announced(d *lab.Daemon, paths int) bool {
	s := d.Status()
	a := s.P2P.Announcing
	return s.Store.Shareable == paths && a != nil && a.Keys > paths && a.Waiting == 0 && a.Regions == 0
}

// madeUpStore is the database of a Nix store with signed paths of which there are
// no files, and a network of which one bootstrap node is known.
type madeUpStore struct {
	*lab.Lab
	tb        testing.TB
	nix       *lab.Nix
	key       narinfo.SecretKey
	bootstrap *lab.Daemon
	random    *mathrand.Rand
	// paths have ten references each.
	paths []*narstore.PathInfo
}

func newMadeUpStore(tb testing.TB, paths int) *madeUpStore {
	tb.Helper()
	m := &madeUpStore{Lab: lab.New(tb), tb: tb, random: mathrand.New(mathrand.NewPCG(1, 0))}
	var err error
	if m.key, err = narinfo.GenerateSecretKey("lab-1"); err != nil {
		tb.Fatal(err)
	}
	m.nix = m.Nix("store", lab.NixConfig{})
	m.nix.Init()
	m.add(paths)
	m.bootstrap = m.Daemon("bootstrap", lab.DaemonConfig{})
	return m
}

// daemon starts a daemon that serves the store. Its budget must not count in a
// private network.
func (m *madeUpStore) daemon(name string) *lab.Daemon {
	return m.Daemon(name, lab.DaemonConfig{
		Bootstrap: m.bootstrap, StoreRoot: m.nix.Root, Keys: []string{m.key.Public().String()}, AnnounceBudget: "1KiB",
	})
}

// change runs f on the store's database, in one transaction.
func (m *madeUpStore) change(f func(exec func(query string, args ...any))) {
	m.tb.Helper()
	db, err := sql.Open("sqlite", filepath.Join(m.nix.Root, "nix/var/nix/db/db.sqlite"))
	if err != nil {
		m.tb.Fatal(err)
	}
	tx, err := db.BeginTx(m.tb.Context(), nil)
	if err != nil {
		m.tb.Fatal(err)
	}
	f(func(query string, args ...any) {
		if _, err := tx.ExecContext(m.tb.Context(), query, args...); err != nil {
			m.tb.Fatal(err)
		}
	})
	if err := errors.Join(tx.Commit(), db.Close()); err != nil {
		m.tb.Fatal(err)
	}
}

// add registers further paths and returns them.
func (m *madeUpStore) add(count int) []*narstore.PathInfo {
	m.tb.Helper()
	first := len(m.paths)
	m.change(func(exec func(string, ...any)) {
		for i := first; i < first+count; i++ {
			sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
			path, err := nix.NewStorePath(nix.HashPart(sum[:20]), fmt.Sprintf("package-%d-1.0", i))
			if err != nil {
				m.tb.Fatal(err)
			}
			info := &narstore.PathInfo{Path: path, NARHash: sha256.Sum256(sum[:]), NARSize: 1 << (8 + m.random.IntN(16))}
			for range min(i, 10) {
				info.References = append(info.References, m.paths[m.random.IntN(i)].Path)
			}
			exec("insert into ValidPaths (id, path, hash, registrationTime, narSize, sigs) values (?, ?, ?, 1, ?, ?)",
				i+1, path.String(), fmt.Sprintf("sha256:%x", info.NARHash[:]), info.NARSize, m.key.Sign(info.Narinfo().Fingerprint()).String())
			for _, ref := range info.References {
				exec("insert or ignore into Refs select ?, id from ValidPaths where path = ?", i+1, ref.String())
			}
			m.paths = append(m.paths, info)
		}
	})
	return m.paths[first:]
}

// remove makes a path invalid, as garbage collection does.
func (m *madeUpStore) remove(info *narstore.PathInfo) {
	m.tb.Helper()
	m.change(func(exec func(string, ...any)) {
		exec("pragma defer_foreign_keys = on")
		exec("delete from Refs where reference = (select id from ValidPaths where path = ?)", info.Path.String())
		exec("delete from ValidPaths where path = ?", info.Path.String())
	})
}

// await waits for what takes minutes.
func (m *madeUpStore) await(d *lab.Daemon, what string, cond func() bool) {
	m.tb.Helper()
	for deadline := time.Now().Add(15 * time.Minute); !cond(); time.Sleep(time.Second) {
		if time.Now().After(deadline) {
			m.tb.Fatalf("waited in vain for %s: %+v", what, d.Status().P2P.Announcing)
		}
	}
}

// expectAt fails the test unless all the servers have both records of each path.
func (m *madeUpStore) expectAt(s *servers, count int, paths []*narstore.PathInfo) {
	m.tb.Helper()
	for _, p := range paths {
		for _, key := range []cid.Cid{routing.ContentKey(p.NARHash), routing.MetadataKey(p.Path.HashPart())} {
			if got := s.holders(m.tb, key); got != count {
				m.tb.Errorf("%d of %d servers have a record of %s", got, count, p.Path)
			}
		}
	}
}

// servers serve the DHT of the network "lab" in this process, and count what
// they are sent.
type servers struct {
	hosts []libp2phost.Host
	dhts  []*dht.IpfsDHT
	sent  [8]atomic.Int64 // by message type
}

// startServers starts servers that know bootstrap. Each keeps its records in what
// wrap makes of a map.
func startServers[D ds.Batching](tb testing.TB, count int, bootstrap *lab.Daemon, wrap func(ds.Datastore) D) *servers {
	tb.Helper()
	var first []peer.AddrInfo
	for _, text := range bootstrap.Addrs() {
		info, err := peer.AddrInfoFromString(text)
		if err != nil {
			tb.Fatal(err)
		}
		first = append(first, *info)
	}
	s := &servers{}
	for range count {
		key, _, err := crypto.GenerateEd25519Key(rand.Reader)
		if err != nil {
			tb.Fatal(err)
		}
		h, err := host.New(&host.Config{
			Identity: key,
			Listen:   []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")},
			Family:   string(routing.Prefix("lab")) + "/1",
		})
		if err != nil {
			tb.Fatal(err)
		}
		d, err := dht.New(h,
			dht.ProtocolPrefix(routing.Prefix("lab")), dht.Mode(dht.ModeServer), dht.DisableValues(),
			dht.ProviderDatastore(wrap(ds.NewMapDatastore())),
			dht.OnRequestHook(func(_ context.Context, _ network.Stream, msg *pb.Message) { s.sent[msg.GetType()].Add(1) }))
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() {
			if err := errors.Join(h.Close(), d.Close()); err != nil {
				tb.Error(err)
			}
		})
		for _, info := range first {
			if err := h.Connect(tb.Context(), info); err != nil {
				tb.Fatal(err)
			}
		}
		s.hosts, s.dhts = append(s.hosts, h), append(s.dhts, d)
	}
	for _, d := range s.dhts {
		if err := <-d.RefreshRoutingTable(); err != nil {
			tb.Fatal(err)
		}
	}
	return s
}

// messages is how many messages of a type have come.
func (s *servers) messages(kind pb.Message_MessageType) int { return int(s.sent[kind].Load()) }

// records is how many provider records have come.
func (s *servers) records() int { return s.messages(pb.Message_ADD_PROVIDER) }

// holders counts the servers that have a record of the key.
func (s *servers) holders(tb testing.TB, key cid.Cid) int {
	tb.Helper()
	holders := 0
	for _, d := range s.dhts {
		found, err := d.ProviderStore().GetProviders(tb.Context(), key.Hash())
		if err != nil {
			tb.Fatal(err)
		}
		if len(found) > 0 {
			holders++
		}
	}
	return holders
}

// asks reports whether a daemon says that it has a path.
func (s *servers) asks(tb testing.TB, d *lab.Daemon, info *narstore.PathInfo) bool {
	tb.Helper()
	addrs := slices.Clone(d.Addrs())
	them, err := peer.AddrInfoFromString(addrs[0])
	if err != nil {
		tb.Fatal(err)
	}
	client := exchange.NewClient(s.hosts[0], exchange.ClientConfig{Prefix: routing.Prefix("lab")}, zap.NewNop())
	if err := client.Connect(tb.Context(), *them); err != nil {
		tb.Fatal(err)
	}
	holdings, err := client.Have(tb.Context(), them.ID, []nix.NARHash{info.NARHash})
	if err != nil {
		tb.Fatal(err)
	}
	return holdings[0].Held
}

// sample is a datastore that forgets all but a few of its entries.
type sample struct{ ds.Batching }

func newSample(store ds.Datastore) sample { return sample{dssync.MutexWrap(store)} }

// Put implements ds.Datastore. Byte 30 is in the middle of the key's hash.
func (s sample) Put(ctx context.Context, key ds.Key, value []byte) error {
	if key.Bytes()[30] != 'A' {
		return nil
	}
	return s.Batching.Put(ctx, key, value)
}
