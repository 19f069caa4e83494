package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/nar-p2p/nar-p2p/internal/config"
	"github.com/nar-p2p/nar-p2p/internal/schedule"
)

const peerID = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"

// load runs config.Load on the text of a file, on environment variables beside
// HOME=/home/u, and on flags.
func load(t *testing.T, file string, environ, args []string) (*config.Config, error) {
	t.Helper()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	config.AddFlags(flags)
	if file != "" {
		path := filepath.Join(t.TempDir(), "config.toml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return config.Load(flags, append([]string{"HOME=/home/u", "XDG_RUNTIME_DIR=/run/user/1"}, environ...))
}

func TestDefaults(t *testing.T) {
	got, err := load(t, "", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := &config.Config{
		Profile:     config.ProfilePublic,
		Network:     "public",
		Role:        "node",
		Routing:     "dht",
		Metered:     "auto",
		StateDir:    "/home/u/.local/state/nar-p2p",
		Log:         config.Log{Level: "info", Format: "console"},
		Store:       config.Store{Kind: "auto", Dir: "/nix/store"},
		Substituter: config.Substituter{Listen: "127.0.0.1:8460", Priority: 30, Deadline: 5 * time.Second, MaxRecords: 65536, Prefetch: true},
		P2P: config.P2P{Listen: []string{
			"/ip4/0.0.0.0/tcp/8461", "/ip4/0.0.0.0/udp/8461/quic-v1",
			"/ip6/::/tcp/8461", "/ip6/::/udp/8461/quic-v1",
		}},
		Relay:     config.Relay{Rate: 4 << 20, Volume: 1 << 30},
		Share:     config.Share{PublicKeys: []string{config.CacheNixOSKey}, AnnounceBudget: 200 << 20},
		Trust:     config.Trust{PublicKeys: []string{config.CacheNixOSKey}, Threshold: 1},
		Upstreams: []config.Upstream{{URL: "https://cache.nixos.org", Priority: 40}},
		Fetch:     config.Fetch{Memory: 256 << 20, Window: 32 << 20},
		Reuse: config.Reuse{
			Enabled: true, Masked: true, IndexSize: 128 << 20, Background: true, BackgroundMin: 1 << 20, BackgroundRate: 19 << 20,
		},
		Control: config.Control{Socket: "/run/user/1/nar-p2p/control.sock"},
		Origins: map[string]string{},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Load() of nothing (-want +got):\n%s", diff)
	}
}

func TestEveryKeyFromFile(t *testing.T) {
	const file = `
profile = "private"
network = "team-7"
role = "node"
routing = "both"
routing_endpoints = ["https://u:p@routing.example.org", "http://[::1]:8462/routing/v1/"]
serve_routing = "127.0.0.1:8462"
metered = "yes"
state_dir = "/var/lib/x"
[log]
level = "debug"
format = "json"
[store]
kind = "nix"
dir = "/nix/store"
root = "/mnt"
real_dir = "/mnt/elsewhere/store"
nix_state_dir = "/mnt/elsewhere/var"
daemon_socket = "/mnt/socket"
[substituter]
listen = "[::1]:0"
priority = 10
deadline = "1500ms"
hosts = ["cache.lan"]
race_peers = true
max_records = 2000
prefetch = false
[p2p]
listen = ["/ip4/127.0.0.1/tcp/0"]
bootstrap = ["/ip4/192.0.2.1/tcp/8461/p2p/` + peerID + `"]
peers = ["/dns4/example.org/udp/8461/quic-v1/p2p/` + peerID + `"]
allow = ["` + peerID + `"]
allow_file = "/etc/nar-p2p/allow"
psk_file = "/run/secrets/psk"
upload_limit = "10MiB/s"
[share]
public_keys = []
exclude = ["linux-*"]
max_nar_size = "64MiB"
announce_budget = "50MiB"
[trust]
public_keys = ["` + config.CacheNixOSKey + `"]
threshold = 1
[[upstream]]
url = "http://127.0.0.1:9"
public_keys = ["` + config.CacheNixOSKey + `"]
private = true
priority = 10
netrc = "/etc/netrc"
include = ["acme-*", "x"]
exclude = ["acme-secret-*"]
[[upstream]]
url = "http://127.0.0.1:10"
token_file = "/run/token"
[[upstream]]
url = "https://cache.nixos.org"
[fetch]
memory = "100MiB"
window = "4096KiB"
download_limit = "5MiB/s"
[[interface]]
match = ["wl*", "10.1.0.0/16"]
share = false
[[interface]]
match = ["*"]
lan = false
mdns = false
[[schedule]]
days = ["mon-thu", "sat"]
from = "08:00"
to = "18:00"
upload = "1MiB/s"
download = "none"
[[schedule]]
from = "23:00"
to = "06:00"
upload = "none"
[reuse]
enabled = false
masked = false
index_size = "1MiB"
background = false
background_min = "2MiB"
background_rate = "1MiB"
[control]
socket = "/run/x/y.sock"
`
	got, err := load(t, file, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := &config.Config{
		Profile:  config.ProfilePrivate,
		Network:  "team-7",
		Role:     "node",
		StateDir: "/var/lib/x",
		Routing:  "both",
		RoutingEndpoints: []string{
			"https://u:p@routing.example.org", "http://[::1]:8462/routing/v1/",
		},
		ServeRouting: "127.0.0.1:8462",
		Metered:      config.MeteredYes,
		Log:          config.Log{Level: "debug", Format: "json"},
		Store: config.Store{
			Kind: "nix", Dir: "/nix/store", Root: "/mnt", RealDir: "/mnt/elsewhere/store",
			NixStateDir: "/mnt/elsewhere/var", DaemonSocket: "/mnt/socket",
		},
		Substituter: config.Substituter{
			Listen: "[::1]:0", Priority: 10, Deadline: 1500 * time.Millisecond, Hosts: []string{"cache.lan"}, MaxRecords: 2000, RacePeers: true,
		},
		P2P: config.P2P{
			Listen:      []string{"/ip4/127.0.0.1/tcp/0"},
			Bootstrap:   []string{"/ip4/192.0.2.1/tcp/8461/p2p/" + peerID},
			Peers:       []string{"/dns4/example.org/udp/8461/quic-v1/p2p/" + peerID},
			Allow:       []string{peerID},
			AllowFile:   "/etc/nar-p2p/allow",
			PSKFile:     "/run/secrets/psk",
			UploadLimit: 10 << 20,
		},
		Relay: config.Relay{Rate: 4 << 20, Volume: 1 << 30},
		Share: config.Share{PublicKeys: []string{}, Exclude: []string{"linux-*"}, MaxNARSize: 64 << 20, AnnounceBudget: 50 << 20},
		Trust: config.Trust{PublicKeys: []string{config.CacheNixOSKey}, Threshold: 1},
		Upstreams: []config.Upstream{
			{
				URL: "http://127.0.0.1:9", PublicKeys: []string{config.CacheNixOSKey}, Private: true, Priority: 10,
				Netrc: "/etc/netrc", Include: []string{"acme-*", "x"}, Exclude: []string{"acme-secret-*"},
			},
			{URL: "http://127.0.0.1:10", Priority: 40, TokenFile: "/run/token"},
			{URL: "https://cache.nixos.org", Priority: 40},
		},
		Interfaces: []config.Interface{
			{Match: []string{"wl*", "10.1.0.0/16"}, LAN: true, MDNS: true},
			{Match: []string{"*"}, Share: true},
		},
		Fetch: config.Fetch{Memory: 100 << 20, Window: 4 << 20, DownloadLimit: 5 << 20},
		Schedule: []schedule.Entry{
			{Days: 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<6, From: 8 * 60, To: 18 * 60, Limits: schedule.Limits{Upload: 1 << 20, Download: 0}},
			{Days: schedule.EveryDay, From: 23 * 60, To: 6 * 60, Limits: schedule.Limits{Upload: 0, Download: schedule.Unset}},
		},
		Reuse:   config.Reuse{IndexSize: 1 << 20, BackgroundMin: 2 << 20, BackgroundRate: 1 << 20},
		Control: config.Control{Socket: "/run/x/y.sock"},
		File:    got.File,
		Origins: got.Origins,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Load() (-want +got):\n%s", diff)
	}
}

func TestPrecedence(t *testing.T) {
	const file = "[substituter]\npriority = 1\nlisten = \"127.0.0.1:1\"\ndeadline = \"1s\"\n[share]\nexclude = [\"a\"]\n"
	got, err := load(t, file,
		[]string{"NAR_P2P_SUBSTITUTER_LISTEN=127.0.0.1:2", "NAR_P2P_SUBSTITUTER_DEADLINE=2s", "NAR_P2P_SHARE_EXCLUDE=b c,d", "NAR_P2P_SOCKET=/s"},
		[]string{"--substituter-deadline=3s", "--upstream=http://a.example", "--upstream=http://b.example http://c.example"})
	if err != nil {
		t.Fatal(err)
	}
	want := config.Substituter{Listen: "127.0.0.1:2", Priority: 1, Deadline: 3 * time.Second, MaxRecords: 65536, Prefetch: true}
	if diff := cmp.Diff(want, got.Substituter); diff != "" {
		t.Errorf("substituter (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"b", "c", "d"}, got.Share.Exclude); diff != "" {
		t.Errorf("share.exclude (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]config.Upstream{{URL: "http://a.example", Priority: 40}, {URL: "http://b.example", Priority: 40}, {URL: "http://c.example", Priority: 40}}, got.Upstreams); diff != "" {
		t.Errorf("upstream (-want +got):\n%s", diff)
	}
}

func TestDerived(t *testing.T) {
	tests := map[string]struct {
		environ, args []string
		profile       config.Profile
		state, socket string
		upstreams     int
	}{
		"named network is private": {
			args: []string{"--network=team"}, profile: config.ProfilePrivate,
			state: "/home/u/.local/state/nar-p2p", socket: "/run/user/1/nar-p2p/control.sock", upstreams: 1,
		},
		"named network, fetching only": {
			args: []string{"--network=team", "--profile=consume"}, profile: config.ProfileConsume,
			state: "/home/u/.local/state/nar-p2p", socket: "/run/user/1/nar-p2p/control.sock", upstreams: 1,
		},
		"systemd's directories": {
			environ: []string{"STATE_DIRECTORY=/var/lib/nar-p2p:/other", "RUNTIME_DIRECTORY=/run/nar-p2p"}, profile: config.ProfilePublic,
			state: "/var/lib/nar-p2p", socket: "/run/nar-p2p/control.sock", upstreams: 1,
		},
		"relative XDG directories are ignored": {
			environ: []string{"XDG_STATE_HOME=state"}, profile: config.ProfilePublic,
			state: "/home/u/.local/state/nar-p2p", socket: "/run/user/1/nar-p2p/control.sock", upstreams: 1,
		},
		"an empty list": {
			environ: []string{"NAR_P2P_UPSTREAM="}, args: []string{"--state-dir=/s"}, profile: config.ProfilePublic,
			state: "/s", socket: "/run/user/1/nar-p2p/control.sock", upstreams: 0,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := load(t, "", tt.environ, tt.args)
			if err != nil {
				t.Fatal(err)
			}
			if got.Profile != tt.profile || got.StateDir != tt.state || got.Control.Socket != tt.socket || len(got.Upstreams) != tt.upstreams {
				t.Errorf("Load() = profile %s, state %s, socket %s, upstreams %v", got.Profile, got.StateDir, got.Control.Socket, got.Upstreams)
			}
		})
	}
}

// TestErrors wants the key, the value and the reason in every error.
func TestErrors(t *testing.T) {
	tests := map[string]struct {
		file          string
		environ, args []string
		want          string
	}{
		"unknown key":             {file: "[p2p]\nlisten_on = []", want: `config.toml: unknown key "p2p.listen_on": did you mean "p2p.listen"?`},
		"unknown table":           {file: "[peer]\nallow = []", want: `unknown key "peer.allow": did you mean "p2p.allow"?`},
		"unknown upstream key":    {file: "[[upstream]]\nuri = 'http://x.example'", want: `upstream: number 1: unknown key "uri": its keys are url, priority, public_keys, private, netrc, token_file, include, exclude`},
		"far from every key":      {file: "frobnicate = 1", want: "unknown key \"frobnicate\"\n"},
		"upstream as a table":     {file: "[upstream]\nurl = 'http://x.example'", want: `config.toml: upstream: is a list of tables: write [[upstream]]`},
		"upstream without url":    {file: "[[upstream]]\nprivate = true", want: `upstream: number 1: url is missing`},
		"unknown variable":        {environ: []string{"NAR_P2P_PROFIL=off"}, want: "unknown environment variable NAR_P2P_PROFIL: did you mean \"NAR_P2P_PROFILE\"?"},
		"broken TOML":             {file: "profile = ", want: "config.toml:1: toml:"},
		"no such file":            {args: []string{"--config=/does/not/exist"}, want: "/does/not/exist: no such file"},
		"wrong type":              {file: "network = 3", want: "config.toml: network: 3: is not text"},
		"value for a table":       {file: "log = 'debug'", want: `unknown key "log"`},
		"profile":                 {args: []string{"--profile=open"}, want: `--profile: "open": is not one of off, consume, lan, private, public`},
		"network name":            {args: []string{"--network=My Net"}, want: `--network: "My Net": is not 1 to 32 characters`},
		"long network name":       {args: []string{"--network=" + strings.Repeat("a", 33)}, want: `is not 1 to 32 characters`},
		"private without network": {args: []string{"--profile=private"}, want: `"private" needs a named network`},
		"public with network":     {args: []string{"--profile=public", "--network=team"}, want: `network is "team"`},
		"store dir":               {args: []string{"--store-dir=/gnu/store"}, want: `--store-dir: "/gnu/store": must be /nix/store, because signatures are made over it`},
		"rate without its time":   {args: []string{"--p2p-upload-limit=10MiB"}, want: `--p2p-upload-limit: "10MiB": is neither a rate such as "10MiB/s" nor "none"`},
		"rate of nothing":         {args: []string{"--p2p-upload-limit=10KiB/s"}, want: `"10KiB/s": is less than 64KiB/s`},
		"relative path":           {args: []string{"--store-root=mnt"}, want: `--store-root: "mnt": is not an absolute path`},
		"cache without directory": {args: []string{"--store-kind=cache"}, want: `store.kind: "cache" needs store.cache`},
		"directory without cache": {args: []string{"--store-kind=nix", "--store-cache=/c"}, want: `store.cache: is set, but store.kind is "nix"`},
		"cache and root":          {args: []string{"--store-root=/r", "--store-cache=/c"}, want: `store.cache: is set beside settings of a Nix store`},
		"listen":                  {environ: []string{"NAR_P2P_SUBSTITUTER_LISTEN=8460"}, want: `$NAR_P2P_SUBSTITUTER_LISTEN: "8460": is not HOST:PORT`},
		"port":                    {args: []string{"--substituter-listen=127.0.0.1:99999"}, want: `port "99999" is not a number from 0 to 65535`},
		"priority":                {file: "[substituter]\npriority = -1", want: "substituter.priority: -1: is not between 0 and 1000"},
		"deadline without unit":   {file: "[substituter]\ndeadline = 5", want: "substituter.deadline: 5: is not a duration with its unit"},
		"deadline":                {args: []string{"--substituter-deadline=10m"}, want: `"10m": is not between 100ms and 1m0s`},
		"multiaddr":               {args: []string{"--p2p-listen=127.0.0.1:1"}, want: `--p2p-listen: "127.0.0.1:1": is not a multiaddr`},
		"multiaddr without port":  {args: []string{"--p2p-listen=/ip4/127.0.0.1"}, want: `"/ip4/127.0.0.1": does not end in /tcp/<port> or`},
		"bootstrap without peer":  {args: []string{"--p2p-bootstrap=/ip4/127.0.0.1/tcp/1"}, want: `does not end in /p2p/<peer ID>`},
		"boolean":                 {file: "[[upstream]]\nurl = 'http://x.example'\nprivate = 'maybe'", want: "private: maybe: is neither true nor false"},
		"host name":               {args: []string{"--substituter-hosts=http://a"}, want: `--substituter-hosts: "http://a": is not a host name`},
		"peer ID":                 {args: []string{"--p2p-allow=bob"}, want: `--p2p-allow: "bob": is not a peer ID`},
		"public key":              {args: []string{"--share-public-keys=a:b"}, want: `--share-public-keys: "a:b": narinfo: public key`},
		"own key on the public network": {
			file: "[share]\npublic_keys = ['team-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=']",
			want: `share.public_keys: "team-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=": the public network shares only what cache.nixos.org has signed: set network`,
		},
		"interface without match": {file: "[[interface]]\nlan = false", want: `interface: number 1: match is missing`},
		"interface of no network": {file: "[[interface]]\nmatch = ['10.0.0.0/33']", want: `interface: number 1: match: "10.0.0.0/33": is not a network such as 10.1.0.0/16`},
		"interface in a word":     {args: []string{"--interface=wl*;lan"}, want: `--interface: "wl*;lan": is not of the form`},
		"schedule without times":  {file: "[[schedule]]\nupload = 'none'", want: `schedule: number 1: from or to is missing`},
		"schedule without limits": {file: "[[schedule]]\nfrom = '08:00'\nto = '09:00'", want: `schedule: number 1: has neither upload nor download`},
		"schedule on no day":      {file: "[[schedule]]\ndays = ['monday']", want: `schedule: number 1: days: "monday": is not one of mon, tue, wed, thu, fri, sat, sun, nor two of them as in mon-fri`},
		"schedule at no time":     {file: "[[schedule]]\nfrom = '8 am'", want: `schedule: number 1: from: "8 am": is not a time of day such as 08:30`},
		"unknown schedule key":    {file: "[[schedule]]\nat = '8:00'", want: `schedule: number 1: unknown key "at": its keys are days, from, to, upload, download`},
		"schedule as a table":     {file: "[schedule]\nfrom = '08:00'", want: `schedule: is a list of tables: write [[schedule]]`},
		"schedule in a word":      {args: []string{"--schedule=mon;upload=1MiB/s"}, want: `--schedule: "mon;upload=1MiB/s": is not of the form`},
		"glob":                    {args: []string{"--share-exclude=[a"}, want: `--share-exclude: "[a": is not a pattern`},
		"size unit":               {args: []string{"--share-max-nar-size=64MB"}, want: `"64MB": is not a size in B, KiB, MiB, GiB or TiB`},
		"size overflow":           {args: []string{"--share-max-nar-size=99999999TiB"}, want: `is too large`},
		"threshold":               {args: []string{"--trust-threshold=2"}, want: `trust.threshold: 2 signatures are wanted, but only 1 keys are trusted`},
		"no trusted key":          {args: []string{"--trust-public-keys="}, want: `trust.threshold: 1 signatures are wanted, but only 0 keys`},
		"upstream scheme":         {args: []string{"--upstream=s3://bucket"}, want: `url: "s3://bucket": is not an http:// or https:// URL`},
		"upstream password":       {args: []string{"--upstream=http://me:pw@x.example/?priority=1"}, want: `url: "http://me:xxxxx@x.example/?priority=1": has a query`},
		"upstream priority":       {file: "[[upstream]]\nurl = 'http://x.example'\npriority = -1", want: `upstream: number 1: priority: -1: is not between 0 and 1000`},
		"upstream netrc":          {file: "[[upstream]]\nurl = 'http://x.example'\nnetrc = 'netrc'", want: `netrc: "netrc": is not an absolute path`},
		"upstream filter":         {file: "[[upstream]]\nurl = 'http://x.example'\nexclude = ['[a']", want: `exclude: "[a": is not a pattern`},
		"long socket path":        {args: []string{"--control-socket=/" + strings.Repeat("a", 107)}, want: `has 108 bytes, and the path of a unix socket at most 106`},
		"long default socket":     {environ: []string{"XDG_RUNTIME_DIR=/" + strings.Repeat("a", 90)}, want: `control.socket: "/a`},
		"little index":            {args: []string{"--reuse-index-size=100KiB"}, want: `reuse.index_size: 100KiB is not enough: at least 1MiB are needed`},
		"little memory":           {args: []string{"--fetch-memory=63MiB"}, want: `fetch.memory: 63MiB is not enough: at least 64MiB are needed`},
		"large window":            {args: []string{"--fetch-window=1GiB"}, want: `fetch.window: 1GiB is not between 4MiB and fetch.memory`},
		"no home":                 {environ: []string{"HOME="}, want: "state_dir: neither"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := load(t, tt.file, tt.environ, tt.args)
			if err == nil || !strings.Contains(err.Error()+"\n", tt.want) {
				t.Errorf("Load() = %v, %v, want an error with %q", got, err, tt.want)
			}
		})
	}
}

func TestEffective(t *testing.T) {
	c, err := load(t, "profile = 'consume'\n", []string{"NAR_P2P_TRUST_THRESHOLD=1"}, []string{"--upstream=http://me:pw@x.example/"})
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]config.Effective)
	for _, s := range c.Effective() {
		got[s.Key] = s
	}
	for _, want := range []config.Effective{
		{Key: "profile", Values: []string{"consume"}, Origin: c.File},
		{Key: "trust.threshold", Values: []string{"1"}, Origin: "$NAR_P2P_TRUST_THRESHOLD"},
		{Key: "upstream", Values: []string{"http://me:xxxxx@x.example/"}, Origin: "--upstream"},
		{Key: "network", Values: []string{"public"}, Origin: config.OriginDefault},
		{Key: "p2p.peers", Values: []string{}, Origin: config.OriginDefault},
	} {
		if diff := cmp.Diff(want, got[want.Key]); diff != "" {
			t.Errorf("Effective() (-want +got):\n%s", diff)
		}
	}
}

// What is shown of a schedule is what the environment takes.
func TestScheduleInWords(t *testing.T) {
	const item = "mon-thu+sat;08:00-18:00;upload=1048576/s;download=none"
	c, err := load(t, "", []string{"NAR_P2P_SCHEDULE=" + item + " mon-sun;23:00-06:00;upload=2MiB/s"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range c.Effective() {
		if s.Key != "schedule" {
			continue
		}
		if diff := cmp.Diff([]string{item, "mon-sun;23:00-06:00;upload=2097152/s"}, s.Values); diff != "" {
			t.Errorf("schedule (-want +got):\n%s", diff)
		}
	}
}

func TestInterfacesInWords(t *testing.T) {
	const item = "wl*+10.1.0.0/16;lan=true;mdns=true;share=false"
	c, err := load(t, "", nil, []string{"--interface=wl*+10.1.0.0/16;share=false"})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range c.Effective() {
		if s.Key == "interface" && !cmp.Equal([]string{item}, s.Values) {
			t.Errorf("interface is %q, want %q", s.Values, item)
		}
	}
}

// Some settings of another configuration are taken over, and nothing is shared with
// it; what does not go together with the others is refused.
func TestWith(t *testing.T) {
	was, err := load(t, "share.max_nar_size = '64MiB'\nshare.exclude = ['a']\n", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	is, err := load(t, "network = 'team'\nshare.public_keys = ['team-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=']\nshare.exclude = ['b']\n"+
		"[[upstream]]\nurl = 'https://cache.nixos.org'\npriority = 3\n[[schedule]]\nfrom = '01:00'\nto = '02:00'\nupload = '1MiB/s'\n", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	changed := config.Changes(was, is)
	if diff := cmp.Diff([]string{"profile", "network", "share.public_keys", "share.exclude", "share.max_nar_size", "upstream", "schedule"}, changed); diff != "" {
		t.Errorf("Changes() (-want +got):\n%s", diff)
	}
	mixed, err := was.With(is, []string{"share.exclude", "share.max_nar_size", "upstream", "schedule"})
	if err != nil {
		t.Fatal(err)
	}
	want := *was
	want.Share.Exclude, want.Share.MaxNARSize = []string{"b"}, 0
	want.Upstreams, want.Schedule = is.Upstreams, is.Schedule
	want.Origins = map[string]string{"share.exclude": is.File, "upstream": is.File, "schedule": is.File}
	if diff := cmp.Diff(&want, mixed); diff != "" {
		t.Errorf("With() (-want +got):\n%s", diff)
	}
	is.Upstreams[0].Priority, is.Share.Exclude[0] = 4, "c"
	if mixed.Upstreams[0].Priority != 3 || mixed.Share.Exclude[0] != "b" || was.Share.Exclude[0] != "a" {
		t.Error("With() shares what it has taken")
	}
	if _, err := was.With(is, []string{"share.public_keys"}); err == nil {
		t.Error("the key of a team was taken over into the public network")
	}
}

func TestClientSockets(t *testing.T) {
	got := config.ClientSockets([]string{"HOME=/home/u", "XDG_RUNTIME_DIR=/run/user/1"})
	want := []string{"/run/user/1/nar-p2p/control.sock", "/run/nar-p2p/control.sock", "/home/u/.local/state/nar-p2p/control.sock"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ClientSockets() (-want +got):\n%s", diff)
	}
}
