package main

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
)

const (
	torrentPort = 6881
	pieceSize   = 1 << 20
)

// torrentClient makes the command of a BitTorrent client that seeds what is in a
// folder, or fetches to it.
type torrentClient func(metainfo, dir string, seed bool) []string

// aria2 is the client of that name.
func aria2(metainfo, dir string, seed bool) []string {
	args := []string{
		"aria2c", "--no-conf", "--quiet", "--disable-ipv6", "--enable-dht=false", "--bt-enable-lpd=false",
		"--enable-peer-exchange=false", "--file-allocation=none", "--listen-port=" + strconv.Itoa(torrentPort), "--dir=" + dir,
	}
	if seed {
		args = append(args, "--bt-seed-unverified", "--seed-ratio=0")
	} else {
		args = append(args, "--seed-time=0")
	}
	return append(args, metainfo)
}

// libtorrent is a client that does nothing else, with TCP alone.
func libtorrent(script string) torrentClient {
	return func(metainfo, dir string, seed bool) []string {
		return []string{"/usr/bin/python3", script, metainfo, dir, strconv.Itoa(torrentPort), strconv.FormatBool(seed)}
	}
}

const libtorrentScript = `import libtorrent, sys, time
metainfo, folder, port, seed = sys.argv[1:]
session = libtorrent.session({
    'listen_interfaces': '0.0.0.0:' + port, 'enable_dht': False, 'enable_lsd': False, 'enable_upnp': False,
    'enable_natpmp': False, 'enable_outgoing_utp': False, 'enable_incoming_utp': False,
    'out_enc_policy': 2, 'in_enc_policy': 2, 'allow_multiple_connections_per_ip': True})
params = {'ti': libtorrent.torrent_info(metainfo), 'save_path': folder}
if seed == 'true':
    params['flags'] = libtorrent.torrent_flags.seed_mode
torrent = session.add_torrent(params)
while seed == 'true' or not torrent.status().is_seeding:
    time.sleep(0.02)
`

// torrents are the seeds of the cargo's NAR, and a host that fetches it.
type torrents struct {
	*cargo
	client   torrentClient
	consumer *lab.Host
	metainfo string
	out      string
	runs     int
}

// newTorrents starts the seeds. Nginx on the first one's host is the tracker: it
// gives everyone the same answer, the addresses of all.
func (c *cargo) newTorrents(client torrentClient, seeds []*lab.Host, consumer *lab.Host) (*torrents, error) {
	name := filepath.Base(client("", "", false)[0])
	var peers []byte
	for _, seed := range seeds {
		addr, err := netip.ParseAddr(seed.Addr)
		if err != nil {
			return nil, err
		}
		peers = binary.BigEndian.AppendUint16(append(peers, addr.AsSlice()...), torrentPort)
	}
	tracker := c.Dir(name + "-tracker")
	answer := fmt.Sprintf("d8:intervali60e5:peers%d:%se", len(peers), peers)
	if err := os.WriteFile(filepath.Join(tracker, "announce"), []byte(answer), 0o644); err != nil {
		return nil, err
	}
	text, err := metainfo(c.file(), "http://"+seeds[0].Addr+":6969/announce")
	if err != nil {
		return nil, err
	}
	seeds[0].Nginx(name+"-nginx", 6969, tracker)
	t := &torrents{cargo: c, client: client, consumer: consumer, metainfo: c.File(name+".torrent", string(text)), out: name + "-out"}
	for i, seed := range seeds {
		dir := c.Dir(fmt.Sprintf("%s-seed-%d", name, i))
		if err := os.Link(c.file(), filepath.Join(dir, filepath.Base(c.file()))); err != nil {
			return nil, err
		}
		args := client(t.metainfo, dir, true)
		seed.Start(args[0], args[1:]...)
		seed.WaitListening(torrentPort)
	}
	return t, nil
}

// rate fetches the NAR and returns how many MB/s came.
func (t *torrents) rate() (float64, error) {
	t.runs++
	dir := t.Dir(fmt.Sprintf("%s-%d", t.out, t.runs))
	defer os.RemoveAll(dir)
	args := t.client(t.metainfo, dir, false)
	return t.timed(t.consumer, filepath.Join(dir, filepath.Base(t.file())), args)
}

// timed runs a program that fetches the NAR to a file, and returns how many MB/s
// came.
func (c *cargo) timed(host *lab.Host, file string, args []string) (float64, error) {
	began := time.Now()
	if out, err := host.Command(c.Within(patience), args[0], args[1:]...).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%s: %w\n%s", args[0], err, out)
	}
	took := time.Since(began).Seconds()
	if stat, err := os.Stat(file); err != nil || stat.Size() != c.record.NARSize {
		return 0, fmt.Errorf("%s has not fetched the NAR: %w", args[0], err)
	}
	return c.mb() / took, nil
}

// metainfo describes a file as BEP 3 has it.
func metainfo(path, announce string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var hashes []byte
	var length int64
	for piece := make([]byte, pieceSize); ; {
		n, err := io.ReadFull(f, piece)
		if n > 0 {
			sum := sha1.Sum(piece[:n])
			hashes = append(hashes, sum[:]...)
			length += int64(n)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		} else if err != nil {
			return nil, err
		}
	}
	name := filepath.Base(path)
	var b bytes.Buffer
	fmt.Fprintf(&b, "d8:announce%d:%s4:infod6:lengthi%de4:name%d:%s12:piece lengthi%de6:pieces%d:%see",
		len(announce), announce, length, len(name), name, pieceSize, len(hashes), hashes)
	return b.Bytes(), nil
}
