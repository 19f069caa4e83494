package rebuild

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// buildTime bounds the build of a closure. It only decides how long a broken one
// takes to fail.
const buildTime = 30 * time.Minute

// Network is a private network without any cache: of a builder, which has and
// signs all closures that are built, and of machines that upgrade from it.
type Network struct {
	*lab.Lab
	// Bin is the folder of Nix's programs for the machines; "" means those of
	// $PATH.
	Bin string

	builder  *lab.Nix
	daemon   *lab.Daemon
	key      string // a file
	keys     []string
	machines int
	// signed are the paths of all closures that were built.
	signed map[string]bool
}

// NewNetwork makes a network in which nothing is built yet.
func NewNetwork(l *lab.Lab) (*Network, error) {
	key, err := narinfo.GenerateSecretKey("builder-1")
	if err != nil {
		return nil, fmt.Errorf("rebuild: %w", err)
	}
	n := &Network{Lab: l, key: l.File("builder-1.secret", key.Text()), keys: []string{key.Public().String()}, signed: make(map[string]bool)}
	n.builder = l.Nix("builder", lab.NixConfig{BuildTime: buildTime})
	n.builder.Init()
	n.daemon = l.Daemon("builder", lab.DaemonConfig{StoreRoot: n.builder.Root, Keys: n.keys})
	return n, nil
}

// Build builds a closure, or an attribute of its expression, and has the builder
// sign it. What is built one after the other takes what it can from the builds
// before, as far as that is the same.
func (n *Network) Build(cfg Config, attribute string) (nix.StorePath, error) {
	dir := n.Dir(fmt.Sprintf("closure-%d-%t", cfg.Change, cfg.BuildID))
	if err := Write(dir, cfg); err != nil {
		return nix.StorePath{}, err
	}
	path, err := n.builder.Build(nil, filepath.Join(dir, "default.nix"), "--attr", attribute, "--max-jobs", "auto", "--quiet")
	if err != nil {
		return path, fmt.Errorf("rebuild: %w", err)
	}
	for _, p := range n.builder.Closure(path) {
		n.signed[p] = true
	}
	_, err = n.builder.Run(n.Context(), "nix", "store", "sign", "--recursive", "--key-file", n.key, path.String())
	return path, err
}

// Places returns where the files of each path of a closure lie, in the builder's
// store.
func (n *Network) Places(path nix.StorePath) (places []string) {
	for _, p := range n.builder.Closure(path) {
		places = append(places, filepath.Join(n.builder.Root, p))
	}
	return places
}

// Transfer is what an upgrade through daemons and Nix came to, in bytes.
type Transfer struct {
	// NARs are all that Nix took, Fetched what of them the builder's daemon sent,
	// and Reused what the machine's own daemon found in its store.
	NARs, Fetched, Reused int64
	// Others are all that it sent besides since the machine knows it: manifests,
	// records, and whatever else peers tell each other.
	Others int64
}

// Upgrade has a new machine, that has the closure of old, substitute that of
// upgraded, checks that Nix finds all of it as it was signed, and removes the
// machine. The lines of reuse are its configuration of that name.
func (n *Network) Upgrade(old, upgraded nix.StorePath, reuse ...string) (Transfer, error) {
	n.daemon.WaitShared(len(n.signed))
	n.machines++
	name := fmt.Sprintf("machine-%d", n.machines)
	store := n.Nix(name, lab.NixConfig{TrustedKeys: n.keys, Bin: n.Bin})
	defer store.Remove()
	store.Init()
	if err := n.install(store, old); err != nil {
		return Transfer{}, err
	}
	d := n.Daemon(name, lab.DaemonConfig{StoreRoot: store.Root, Bootstrap: n.daemon, Keys: n.keys, Reuse: reuse})
	store.Use(d.URL())
	n.WaitFor("the machine to know the builder", func() bool { return d.Speaks(n.daemon) })
	served := n.served()
	if err := store.Realise(upgraded); err != nil {
		return Transfer{}, err
	}
	// What was served is counted as it travelled: compressed, where that seemed
	// worthwhile.
	others := n.received(d) - (n.served() - served)
	bytes := d.Status().NARBytes
	got := Transfer{NARs: n.added(old, upgraded), Fetched: int64(bytes["peer"]), Reused: int64(bytes["reuse"]), Others: others}
	store.Verify(upgraded)
	return got, d.Stop()
}

// install copies a closure into a machine's store.
func (n *Network) install(store *lab.Nix, path nix.StorePath) error {
	_, err := n.builder.Run(n.Context(), "nix", "copy", "--no-check-sigs", "--to", "local?root="+store.Root, path.String())
	return err
}

// added returns the size of all NARs that upgraded needs and old does not.
func (n *Network) added(old, upgraded nix.StorePath) (size int64) {
	there := n.builder.Closure(old)
	for _, path := range n.builder.Closure(upgraded) {
		if slices.Contains(there, path) {
			continue
		}
		text := strings.TrimSpace(n.builder.MustRun("nix-store", "--query", "--size", path))
		one, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			panic("rebuild: size of " + path + ": " + err.Error()) // Nix wrote it.
		}
		size += one
	}
	return size
}

// served returns how many bytes of chunks the builder's daemon has sent.
func (n *Network) served() int64 { return n.daemon.Status().P2P.Served.Bytes }

// settled is for how long a number of received bytes must stay the same to be
// the last one: they are added up once a second.
const settled = 2 * time.Second

// received returns how many bytes a daemon has received from the builder's.
func (n *Network) received(d *lab.Daemon) (bytes int64) {
	since := time.Now()
	n.WaitFor("the traffic to be added up", func() bool {
		for _, p := range d.Peers() {
			if p.ID == n.daemon.PeerID() && p.Received != bytes {
				bytes, since = p.Received, time.Now()
			}
		}
		return time.Since(since) > settled
	})
	return bytes
}
