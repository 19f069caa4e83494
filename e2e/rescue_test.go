package e2e

import (
	"crypto/sha256"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// rescueSize is more than all that lies on the way between a source and a client
// that does not read: the windows of peers, 32 MiB, and of the substituter, and
// the buffers of sockets.
const rescueSize = 160 << 20

// large is the team's large path.
func (m *team) large() *narinfo.Info {
	largest := m.closure.Records[0]
	for _, r := range m.closure.Records {
		if r.NARSize > largest.NARSize {
			largest = r
		}
	}
	return largest
}

// interrupted fetches the NAR, has something happen after its first part, and
// returns the hash of what came in all.
func interrupted(t *testing.T, d *lab.Daemon, record *narinfo.Info, happens func()) nix.NARHash {
	t.Helper()
	url := d.URL() + "/" + narinfo.NARURL(record.StorePath.HashPart(), record.NARHash)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("get %s: %s", url, resp.Status)
	}
	body, sum := resp.Body, sha256.New()
	if _, err := io.CopyN(sum, body, rescueSize/8); err != nil {
		t.Fatal(err)
	}
	happens()
	if _, err := io.Copy(sum, body); err != nil {
		t.Fatalf("after the interruption: %v", err)
	}
	return nix.NARHash(sum.Sum(nil))
}

// checkRescue checks that the NAR is right, and that both gave a good deal of it.
func checkRescue(t *testing.T, d *lab.Daemon, record *narinfo.Info, got nix.NARHash) {
	t.Helper()
	if got != record.NARHash {
		t.Errorf("got %v, want %v", got, record.NARHash)
	}
	if from := d.Status().NARBytes; from["peer"] < rescueSize/8 || from["upstream"] < rescueSize/8 {
		t.Errorf("NAR bytes from %v, want a good deal of both", from)
	}
}

// The only provider is killed in the middle of a NAR: the client notices nothing.
func TestUpstreamRescuesANARWhoseProviderDies(t *testing.T) {
	m := newTeam(t, 1, rescueSize)
	record := m.large()
	consumer := m.Daemon("consumer", lab.DaemonConfig{
		Bootstrap: m.bootstrap, Peer: m.provider, Upstreams: []string{m.upstream.URL}, Keys: m.keys(),
	})
	m.WaitFor("the consumer to know the provider", func() bool { return consumer.Speaks(m.provider) })
	// A narinfo is what providers are looked for at; the NAR shall be asked for when
	// they are known. The upstream takes its time, since however busy the machine is,
	// the provider shall be the first.
	getNarinfo(t, consumer.URL(), record.StorePath)
	m.upstream.SetDelay(8 * time.Second)
	if out, err := consumer.Ctl("find", record.NARHash.String()); err != nil {
		t.Fatal(err, out)
	}
	got := interrupted(t, consumer, record, func() {
		m.upstream.SetDelay(0)
		m.provider.Kill()
	})
	checkRescue(t, consumer, record, got)
}

// And the other way round: the upstream is switched off, and a provider that has
// come meanwhile finishes what it began.
func TestPeersRescueANARWhoseUpstreamDies(t *testing.T) {
	m := newTeam(t, 1, rescueSize)
	record := m.large()
	if err := m.provider.Stop(); err != nil {
		t.Fatal(err)
	}
	consumer := m.Daemon("consumer", lab.DaemonConfig{
		Bootstrap: m.bootstrap, Peer: m.provider, Upstreams: []string{m.upstream.URL}, Keys: m.keys(),
	})
	getNarinfo(t, consumer.URL(), record.StorePath)
	got := interrupted(t, consumer, record, func() {
		m.provider.Start()
		m.provider.WaitAnnounced(1)
		m.WaitFor("the consumer to know the provider", func() bool { return consumer.Speaks(m.provider) })
		m.upstream.Stop()
	})
	checkRescue(t, consumer, record, got)
}
