package config

import "strings"

// envPrefix begins every environment variable of the daemon.
const envPrefix = "NAR_P2P_"

// setting is one key of the configuration.
type setting struct {
	// name is the key in TOML, with dots between tables.
	name string
	value
	// doc is one or more sentences for the documentation; its first sentence
	// is the flag's help.
	doc string
	// unset says, for the documentation, what holds where there is no value.
	unset string
	// live says that a change counts without a restart.
	live bool
}

// Live returns the keys that can change without a restart, in the order of the
// documentation.
func Live() []string {
	var keys []string
	for _, s := range settings(defaults()) {
		if s.live {
			keys = append(keys, s.name)
		}
	}
	return keys
}

func (s setting) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.name, ".", "_"))
}

func (s setting) flag() string {
	return strings.NewReplacer(".", "-", "_", "-").Replace(s.name)
}

func (s setting) isList() bool { return strings.HasPrefix(s.kind(), "list") }

// summary is the first sentence of the documentation, without markup.
func (s setting) summary() string {
	first, _, _ := strings.Cut(s.doc, ". ")
	return strings.ReplaceAll(strings.TrimSuffix(first, "."), "`", "") + "."
}

// settings returns the table of all keys, bound to the fields of c.
func settings(c *Config) []setting {
	return []setting{
		{
			name: "profile", value: oneOf((*string)(&c.Profile), "off", "consume", "lan", "private", "public"),
			doc: "How much of the network the node takes part in. " +
				"`off`: no peers at all. `consume`: asks peers, serves and announces nothing. `lan`: only peers on the local network, no DHT. " +
				"`private`: the peers of a named network. `public`: the public IPFS DHT.",
			unset: "`public`, or `private` where `network` is a name",
		},
		{
			name: "network", value: text(&c.Network, checkNetworkName),
			doc: "The network to join: `public`, or the name of a private one (1 to 32 characters of `a-z`, `0-9`, `-`). " +
				"Nodes meet only in a network of the same name; a private one has its own DHT.",
		},
		{
			name: "role", value: oneOf(&c.Role, RoleNode, RoleInfrastructure),
			doc: "What the node is there for. `node`: this machine's own store and Nix. " +
				"`infrastructure`: to help others connect. It has a public address and no store, is a server of the DHT in any case, relays for nodes behind NATs, " +
				"and tells others how reachable they are; docs/networks.md says what it needs.",
		},
		{
			name: "routing", value: oneOf(&c.Routing, RoutingDHT, RoutingDelegated, RoutingBoth),
			doc: "How to find out who provides what. `dht`: by the DHT. `delegated`: by asking `routing_endpoints`, and without taking part in the DHT, " +
				"so that nothing is announced either. `both`: by both at once.",
		},
		{
			name: "routing_endpoints", value: list(&c.RoutingEndpoints, checkEndpoint),
			doc: "URLs of servers to ask, that speak the Delegated Routing V1 HTTP API of IPFS, such as another node's `serve_routing`. " +
				"Their operators learn what is looked for, so they are asked about no more than strangers would be. A named network uses only such as serve that network. " +
				"A URL may have a user and a password.",
		},
		{
			name: "serve_routing", value: text(&c.ServeRouting, checkHostPort),
			doc: "The TCP address on which to answer, over the Delegated Routing V1 HTTP API, who provides what in this node's network. " +
				"Whoever can reach it may ask: in a named network its members only should.",
		},
		{
			name: "metered", live: true, value: oneOf(&c.Metered, MeteredAuto, MeteredYes, MeteredNo),
			doc: "Whether the connection to the internet is paid for by volume, such as a phone's. While it is, nothing is shared with anybody, announced, indexed in the background or looked up ahead of need; " +
				"what Nix asks for is fetched as ever, and queries of the DHT are answered. `auto`: where NetworkManager runs it says so, as it does of phones that it knows and of networks that were marked; else no. `p2pctl status` tells.",
		},
		{
			name: "interface", value: places{&c.Interfaces},
			doc: "What is done on which interfaces of the machine: a VPN or the network at home is not the Wi-Fi of a café. In the file each is a table `[[interface]]`, see below; " +
				"elsewhere a list of items such as `wl*;lan=false;mdns=false;share=false`.",
		},
		{
			name: "state_dir", value: text(&c.StateDir, checkAbsolute),
			doc:   "Where the node keeps its identity key and its database. All but the key can be rebuilt.",
			unset: "`$STATE_DIRECTORY`, else `$XDG_STATE_HOME/nar-p2p`, else `~/.local/state/nar-p2p`",
		},
		{
			name: "log.level", live: true, value: oneOf(&c.Log.Level, "debug", "info", "warn", "error"),
			doc: "The least severe messages to log. Of libp2p and its DHT only what is `warn` or worse is logged, or from `info` on where this is `debug`; of the database always from `warn` on.",
		},
		{
			name: "log.format", value: oneOf(&c.Log.Format, "console", "json"),
			doc: "How messages are written to standard error. `console` writes them to systemd's journal itself where standard error goes there, with priorities and fields: `journalctl -u nar-p2pd -p warning NAR_P2P_LOGGER=p2p`.",
		},
		{
			name: "store.kind", value: oneOf(&c.Store.Kind, StoreAuto, StoreNix, StoreCache, StoreNone),
			doc: "Where store paths are served from. `nix`: a Nix store. `cache`: the binary cache in `store.cache`. " +
				"`none`: nowhere, the node only fetches. `auto`: `store.cache` where it is set, else the Nix store where there is one, else `none`.",
		},
		{
			name: "store.dir", value: text(&c.Store.Dir, checkStoreDir),
			doc: "The logical store directory. Only `/nix/store` is possible: signatures are made over it. " +
				"For a store that lies elsewhere on the disk see `store.root` and `store.real_dir`.",
		},
		{
			name: "store.root", value: text(&c.Store.Root, checkAbsolute),
			doc: "Where the store's file system lies, as in Nix's `local?root=DIR`: its files are in `DIR/nix/store`.", unset: "`/`",
		},
		{
			name: "store.real_dir", value: text(&c.Store.RealDir, checkAbsolute),
			doc: "Where the store's files really lie.", unset: "`nix/store` below `store.root`",
		},
		{
			name: "store.nix_state_dir", value: text(&c.Store.NixStateDir, checkAbsolute),
			doc: "Nix's own state directory, with `db/db.sqlite`.", unset: "`nix/var/nix` below `store.root`",
		},
		{
			name: "store.daemon_socket", value: text(&c.Store.DaemonSocket, checkAbsolute),
			doc:   "The Nix daemon's socket, asked where the database cannot be read.",
			unset: "`daemon-socket/socket` in the Nix state directory",
		},
		{
			name: "store.cache", value: text(&c.Store.Cache, checkAbsolute),
			doc: "A directory that is a binary cache, as `nix copy --to file://DIR` makes it.",
		},
		{
			name: "substituter.listen", value: text(&c.Substituter.Listen, checkHostPort),
			doc: "The TCP address on which Nix reaches the node. Port 0 picks a free one. A socket passed by systemd takes its place.",
		},
		{
			name: "substituter.priority", live: true, value: number(&c.Substituter.Priority, 0, 1000),
			doc: "The priority told to Nix, which asks the substituter with the lowest number first. cache.nixos.org has 40.",
		},
		{
			name: "substituter.deadline", live: true, value: duration(&c.Substituter.Deadline, 100_000_000, 60_000_000_000),
			doc: "How long a narinfo may take in all before Nix is told that there is none.",
		},
		{
			name: "substituter.hosts", live: true, value: list(&c.Substituter.Hosts, checkHostName),
			doc: "Further names under which clients may address the substituter, where others than this machine use it. " +
				"`localhost` and the address that was connected to always work; every other name is refused, against DNS rebinding.",
		},
		{
			name: "substituter.race_peers", live: true, value: boolean(&c.Substituter.RacePeers),
			doc: "Whether peers are asked for metadata at the same time as the upstreams, and not only where these do not answer or, in the case of one's own people, do not have it. " +
				"Quicker where upstreams are slow. In the public network strangers then hear of every path that Nix asks for, or is about to (see `substituter.prefetch`), and that is not known yet, own builds included; " +
				"but where there is a private upstream only of those that it does not have.",
		},
		{
			name: "substituter.max_records", value: number(&c.Substituter.MaxRecords, 1000, 10_000_000),
			doc: "How many narinfos are kept on the disk, for 30 days at most; a thousand take about 1.5 MB. Where there are more, those go that were not asked for the longest.",
		},
		{
			name: "substituter.prefetch", live: true, value: boolean(&c.Substituter.Prefetch),
			doc: "Whether the references of a narinfo that Nix was given are looked up before Nix asks for them. " +
				"It makes Nix's walk through a closure a good deal faster where the upstream is far; see docs/metadata.md.",
		},
		{
			name: "p2p.listen", value: list(&c.P2P.Listen, checkListenAddr),
			doc: "The multiaddrs on which peers reach the node. Port 0 picks a free one.",
		},
		{
			name: "p2p.bootstrap", value: list(&c.P2P.Bootstrap, checkPeerAddr),
			doc:   "Multiaddrs, with peer IDs, of the nodes through which to join the DHT.",
			unset: "the bootstrap nodes of the IPFS DHT in the public network (an empty list: none), none in a named one",
		},
		{
			name: "p2p.peers", value: list(&c.P2P.Peers, checkPeerAddr),
			doc: "Multiaddrs, with peer IDs, of peers to stay connected to.",
		},
		{
			name: "p2p.allow", value: list(&c.P2P.Allow, checkPeerID),
			doc: "Peer IDs of one's own people. In a named network only these peers are talked to, where any are listed. " +
				"In the public network these are not strangers: they are asked first, and also for paths that strangers are not asked for.",
		},
		{
			name: "p2p.allow_file", value: text(&c.P2P.AllowFile, checkAbsolute),
			doc: "A file with more of these peer IDs, one to a line; what follows a `#` is a comment. It is read again when it changes. " +
				"Where it is set but names nobody, nobody is talked to in a named network.",
		},
		{
			name: "p2p.psk_file", value: text(&c.P2P.PSKFile, checkAbsolute),
			doc: "A file with the pre-shared key of a named network, in the form of IPFS's `swarm.key`. Who does not have the key cannot connect at all. " +
				"There is no QUIC then, and holes in NATs are seldom punched; an allow-list usually serves better.",
		},
		{
			name: "p2p.upload_limit", live: true, value: rate(&c.P2P.UploadLimit, minRate),
			doc: "How much is sent to peers in a second, in all, such as `10MiB/s`. It is shared out evenly among the peers that are being served, however many streams each has. " +
				"What encryption and the protocols below add is not counted.",
		},
		{
			name: "relay.data", value: boolean(&c.Relay.Data),
			doc: "Whether a node with role `infrastructure`, in a named network, relays NARs too between nodes that no hole can be punched for. " +
				"All others relay no more than it takes to punch one: [nat](nat.md) tells when NARs come this way.",
		},
		{
			name: "relay.rate", value: rate(&c.Relay.Rate, 1<<10),
			doc: "How much is relayed in a second where `relay.data` is on, in all and in both directions together.",
		},
		{
			name: "relay.volume", value: size(&c.Relay.Volume),
			doc: "How much one connection may carry in each direction where `relay.data` is on; it lasts an hour at most. At least `16MiB`. Who needs more connects again.",
		},
		{
			name: "share.public_keys", live: true, value: list(&c.Share.PublicKeys, checkPublicKey),
			doc: "Only paths with a valid signature of one of these keys leave the machine, and only these are asked of strangers. " +
				"Apart from `trust.public_keys`: trusting a company's key must not publish its builds. " +
				"Any other key than that of cache.nixos.org needs a named `network`.",
		},
		{
			name: "share.exclude", live: true, value: list(&c.Share.Exclude, checkGlob),
			doc: "Patterns of names (what follows the hash part) that never leave the machine, such as `linux-firmware-*`.",
		},
		{
			name: "share.max_nar_size", live: true, value: size(&c.Share.MaxNARSize),
			doc: "The largest NAR that is shared, such as `512MiB`.", unset: "no limit of its own",
		},
		{
			name: "share.announce_budget", live: true, value: size(&c.Share.AnnounceBudget),
			doc: "How many bytes a day the node may send to tell the public DHT what it holds, such as `50MiB`; 0 for as many as it takes. " +
				"Where it does not reach for everything, what is worth most is announced: [discovery](discovery.md#announcing) says in which order. " +
				"In a named network, and on the local one, everything is announced.",
			unset: "no limit",
		},
		{
			name: "trust.public_keys", live: true, value: list(&c.Trust.PublicKeys, checkPublicKey),
			doc: "The keys whose signatures make a record count. List here what Nix's `trusted-public-keys` lists.",
		},
		{
			name: "trust.threshold", live: true, value: number(&c.Trust.Threshold, 1, 100),
			doc: "How many different trusted keys must have signed a record.",
		},
		{
			name: "upstream", live: true, value: upstreams{&c.Upstreams},
			doc: "The HTTP binary caches to ask. In the file each is a table `[[upstream]]`, see below; elsewhere a list of URLs.",
		},
		{
			name: "fetch.memory", value: size(&c.Fetch.Memory),
			doc: "How much memory NARs on their way may take, all together: what is held until it is verified, and what has come from peers ahead of its turn. At least `64MiB`. " +
				"`nar_p2p_memory_used_bytes` in the metrics says what they take. Connections take theirs beside that, and each compressed NAR of an upstream 1 MiB and what its decoder needs (xz: 8 MiB as a rule, up to 64).",
		},
		{
			name: "fetch.window", value: size(&c.Fetch.Window),
			doc: "How far one NAR from peers may be ahead of what has been handed on, so that a slow peer does not hold up the others. From `4MiB` to `fetch.memory`, of which it is a part.",
		},
		{
			name: "fetch.download_limit", live: true, value: rate(&c.Fetch.DownloadLimit, minRate),
			doc: "How much is fetched from peers and upstreams in a second, all together, such as `10MiB/s`. What comes from the local store does not count, nor does metadata. " +
				"Transfers take turns, so that Nix waits longer for each, but gives up on none. `p2pctl status` shows which limit counts now, and `p2pctl explain` how long it has held up a path.",
		},
		{
			name: "schedule", live: true, value: scheduled{&c.Schedule},
			doc: "When other limits count. In the file each is a table `[[schedule]]`, see below; elsewhere a list of items such as `mon-fri;08:00-18:00;upload=1MiB/s;download=none`.",
		},
		{
			name: "reuse.enabled", value: boolean(&c.Reuse.Enabled),
			doc: "Whether what of a NAR lies in other paths of the local Nix store is taken from there, and only the rest is fetched from peers; see docs/delta.md.",
		},
		{
			name: "reuse.masked", value: boolean(&c.Reuse.Masked),
			doc: "Whether that counts, too, which differs only in the hash parts of the store paths that it mentions. Without it an upgrade transfers several times as much; it is there for comparison.",
		},
		{
			name: "reuse.index_size", value: size(&c.Reuse.IndexSize),
			doc: "How large the index of the local store may become, in `state_dir`. A gigabyte of store takes some 2 MB. Where it is full, what was not used for longest goes. At least `1MiB`.",
		},
		{
			name: "reuse.background", value: boolean(&c.Reuse.Background),
			doc: "Whether large paths are indexed before anybody wants them, as long as the machine does not run on a battery. The relatives of a path that is fetched are indexed in any case.",
		},
		{
			name: "reuse.background_min", value: size(&c.Reuse.BackgroundMin),
			doc: "The smallest NAR that is indexed in the background.",
		},
		{
			name: "reuse.background_rate", value: size(&c.Reuse.BackgroundRate),
			doc: "How many bytes a second are read in the background.",
		},
		{
			name: "tracing.endpoint", value: text(&c.Tracing.Endpoint, checkURL),
			doc: "The URL of an OpenTelemetry collector, such as `http://127.0.0.1:4318`, that is told how each request went: traces, by OTLP over HTTP, below `/v1/traces`. " +
				"They name store paths and peers. [Monitoring](monitoring/README.md#traces) says what is in them, and which of OpenTelemetry's variables count.",
			unset: "`$OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or `$OTEL_EXPORTER_OTLP_ENDPOINT`, else no traces",
		},
		{
			name: "control.socket", value: text(&c.Control.Socket, checkSocket),
			doc:   "The unix socket for `p2pctl`.",
			unset: "`$RUNTIME_DIRECTORY/control.sock`, else `$XDG_RUNTIME_DIR/nar-p2p/control.sock`, else `/run/nar-p2p/control.sock` for root, else `control.sock` in `state_dir`",
		},
	}
}
