// Package control is how p2pctl talks to a running nar-p2pd: HTTP with JSON
// over a unix socket.
//
//	GET  /v1/status              Status
//	GET  /v1/config              Config
//	POST /v1/config/reload       Reloaded
//	GET  /v1/peers               []Peer
//	POST /v1/peers/connect       ConnectRequest, empty
//	POST /v1/peers/ping          PingRequest, PingResponse
//	POST /v1/peers/bench         BenchRequest, Bench
//	GET  /v1/peers/banned        []Ban
//	POST /v1/peers/ban           BanRequest, Ban
//	POST /v1/peers/unban         UnbanRequest, empty
//	POST /v1/provide             PathsRequest, PathsResponse
//	POST /v1/withdraw            PathsRequest, PathsResponse
//	POST /v1/records             PathsRequest, RecordsResponse
//	POST /v1/signatures          SignRequest, SignResponse
//	GET  /v1/explain?target=...  explain.Path
//	GET  /v1/find?target=...     lines of FindEvent (application/x-ndjson)
//	GET  /v1/events              lines of events.Event (application/x-ndjson)
//	GET  /v1/stats?days=...      Stats
//	POST /v1/pause               PauseRequest, Sharing
//	POST /v1/resume              empty, Sharing
//	GET  /v1/dashboard           Dashboard
//	GET  /cache/...              the substituter, as on its TCP port
//	GET  /metrics                Prometheus metrics
//	GET  /debug/pprof/...        Go's profiles of the daemon
//
// An answer with another status than 200 is an Error. docs/control.md shows
// the shapes.
package control

import (
	"time"

	"github.com/nar-p2p/nar-p2p/internal/config"
)

// Status is what a node says of itself.
type Status struct {
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	Profile string    `json:"profile"`
	Network string    `json:"network"`
	// Role is "node" or "infrastructure".
	Role string `json:"role"`
	// Visible says in a sentence what strangers can see of the node.
	Visible string `json:"visible"`
	// Substituter is the URL for nix.conf.
	Substituter string `json:"substituter"`
	// ServesRouting is the URL at which others may ask who provides what, where
	// they may.
	ServesRouting string `json:"servesRouting,omitempty"`
	// ConfigFile is "" where none was read.
	ConfigFile string `json:"configFile,omitempty"`
	StateDir   string `json:"stateDir"`
	// StateProblem is why nothing that the node learns is kept at present, if that
	// is so, and StateSetAside the folder of a damaged database that was set aside
	// at the start.
	StateProblem  string      `json:"stateProblem,omitempty"`
	StateSetAside string      `json:"stateSetAside,omitempty"`
	Store         StoreStatus `json:"store"`
	// NARBytes counts what Nix was given since the start, by where it came from:
	// "store", "peer" or "upstream".
	NARBytes  map[string]uint64 `json:"narBytes"`
	Upstreams []UpstreamStatus  `json:"upstreams"`
	// Sharing says whether the owner has paused it.
	Sharing Sharing `json:"sharing"`
	// Metered says whether the connection is paid for by volume.
	Metered Metered `json:"metered"`
	// Limits is absent where nothing is limited at any time.
	Limits *Limits `json:"limits,omitempty"`
	// P2P is absent in profile off.
	P2P *P2PStatus `json:"p2p,omitempty"`
}

// Config is what the daemon runs with.
type Config struct {
	// File is "" where none was read.
	File     string             `json:"file,omitempty"`
	Settings []config.Effective `json:"settings"`
}

// Reloaded says what became of the settings that have changed since they were last
// read.
type Reloaded struct {
	// Applied are the keys that count now, Restart those that need a restart.
	Applied []string `json:"applied"`
	Restart []string `json:"restart"`
	// Note says why something that could change needs a restart all the same, or "".
	Note string `json:"note,omitempty"`
}

// Metered says whether the connection is paid for by volume: then only what Nix asks
// for is done.
type Metered struct {
	// Setting is "auto", "yes" or "no".
	Setting string `json:"setting"`
	Now     bool   `json:"now"`
	// Unknown is why it is not known, with the setting "auto".
	Unknown string `json:"unknown,omitempty"`
}

// Limits are those that count now, in bytes per second; 0 is none.
type Limits struct {
	Upload   int64 `json:"upload"`
	Download int64 `json:"download"`
	// Schedule is the entry of the schedule that says so, where one does, and Until
	// when others will count.
	Schedule string    `json:"schedule,omitempty"`
	Until    time.Time `json:"until,omitzero"`
}

// StoreStatus says where the node's paths are.
type StoreStatus struct {
	// Kind is "nix", "cache" or "none".
	Kind string `json:"kind"`
	// Location is the store's root or the cache's directory.
	Location string `json:"location,omitempty"`
	// Shareable counts the paths that peers may have. Example is the hash part of
	// one of them, and a small one.
	Shareable int    `json:"shareable"`
	Example   string `json:"example,omitempty"`
	// Problem is why the store cannot be read at present, if that is so, and Damaged
	// are paths, 16 at most, whose files turned out to be gone, changed or not
	// readable.
	Problem string   `json:"problem,omitempty"`
	Damaged []string `json:"damaged,omitempty"`
}

// UpstreamStatus says how an upstream is.
type UpstreamStatus struct {
	URL string `json:"url"`
	// Private is true where strangers are not told of its paths.
	Private bool `json:"private"`
	// Reachable is false while the upstream is left alone for having failed.
	Reachable bool `json:"reachable"`
	// State is "unknown" before the first answer, "ok", "slow", or "open" while it
	// is not reachable.
	State string `json:"state"`
	// LatencySeconds is what it took to answer of late, on average, and
	// BytesPerSecond how fast NARs came; 0 where there were none.
	LatencySeconds float64 `json:"latencySeconds,omitempty"`
	BytesPerSecond float64 `json:"bytesPerSecond,omitempty"`
	// Problem is its last failure, where it has not answered since, and OpenUntil
	// the time of its next trial.
	Problem   string    `json:"problem,omitempty"`
	OpenUntil time.Time `json:"openUntil,omitzero"`
}

// P2PStatus says how the node stands in its network.
type P2PStatus struct {
	PeerID string `json:"peerId"`
	// Addresses are multiaddrs that end in the peer ID.
	Addresses []string `json:"addresses"`
	Connected int      `json:"connected"`
	// Reachability is "public", "private" or "unknown": what the node goes by.
	Reachability string `json:"reachability"`
	Reach        Reach  `json:"reach"`
	// Routing is the node's part in the DHT: "server", "client" or "none".
	Routing string `json:"routing"`
	// RoutingPeers counts the entries of the routing table.
	RoutingPeers int `json:"routingPeers"`
	// Bootstrap are the configured addresses of the nodes through which to join.
	Bootstrap []string `json:"bootstrap,omitempty"`
	// Allowed counts the peers on the allow-list. It is absent where there is none.
	Allowed *int `json:"allowed,omitempty"`
	// Foreign counts the connections with nodes of other networks that a named one
	// has closed.
	Foreign int64 `json:"foreign,omitempty"`
	// PSKFile is the file with the pre-shared key, where the network has one.
	PSKFile string `json:"pskFile,omitempty"`
	// Endpoints are the servers that are asked who provides what.
	Endpoints []EndpointStatus `json:"endpoints,omitempty"`
	// Away is the interface that leads to the internet, where by the settings nothing is
	// shared there; then nothing is announced.
	Away string `json:"away,omitempty"`
	// Announcing is absent where nothing is announced.
	Announcing *Announcing `json:"announcing,omitempty"`
	// Served is absent where nobody is served.
	Served *Served `json:"served,omitempty"`
	// Relaying is absent where the node does not relay.
	Relaying *Relaying `json:"relaying,omitempty"`
}

// Reach says how others can reach the node.
type Reach struct {
	// State is "reachable", "relayed" (found through a relay), "unreachable",
	// "unknown" (not yet), or "local" where nobody is to reach it from afar.
	State string `json:"state"`
	// Why says it in a sentence, and Remedy what could be done about it.
	Why    string `json:"why"`
	Remedy string `json:"remedy,omitempty"`
	// Relays are the peer IDs of those that lead to the node.
	Relays []string `json:"relays,omitempty"`
	// NAT is "same port" where all peers see the node at the same one, as it takes to
	// punch holes, "any port" where each sees it at another, and "" where that is not
	// known yet.
	NAT string `json:"nat,omitempty"`
}

// Relaying counts what the node does for others as a relay.
type Relaying struct {
	// Reservations are the nodes that can be reached through it, Connections those
	// that it relays now.
	Reservations int64 `json:"reservations"`
	Connections  int64 `json:"connections"`
	// Bytes were relayed since the start.
	Bytes int64 `json:"bytes"`
}

// EndpointStatus says how a server is that is asked who provides what.
type EndpointStatus struct {
	// URL is without the password.
	URL string `json:"url"`
	// Usable is false while the server is left alone because of a problem.
	Usable  bool   `json:"usable"`
	Problem string `json:"problem,omitempty"`
}

// Announcing says how far the node has come in telling the DHT what it holds.
type Announcing struct {
	// Keys are to be announced, at most two for each path; of these Waiting have
	// not been yet. Regions of the DHT wait for theirs.
	Keys    int `json:"keys"`
	Waiting int `json:"waiting"`
	Regions int `json:"regions"`
	// Skipped keys are beyond the budget. Resting ones are announced on other
	// days: where there is a budget, metadata keys take turns.
	Skipped int `json:"skipped"`
	Resting int `json:"resting"`
	// SentBytes is the upload that it has taken since the start.
	SentBytes int64 `json:"sentBytes"`
	// Swept is when the round began in which all that was announced before is
	// announced again, and Next when its next part is due. They are absent where
	// there is none.
	Swept time.Time `json:"swept,omitzero"`
	Next  time.Time `json:"next,omitzero"`
}

// Served counts what peers got since the start.
type Served struct {
	Bytes          int64 `json:"bytes"`
	Sessions       int64 `json:"sessions"`
	ActiveSessions int64 `json:"activeSessions"`
	Queries        int64 `json:"queries"`
	Refused        int64 `json:"refused"`
}

// Peer is one connected peer.
type Peer struct {
	ID        string   `json:"id"`
	Addresses []string `json:"addresses"`
	// Agent is what the peer calls its software.
	Agent string `json:"agent,omitempty"`
	// Exchange tells whether the peer speaks the protocols of nar-p2p, LAN
	// whether it is on the local network, Allowed whether it is in p2p.allow,
	// Relayed whether it is connected through a relay only.
	Exchange bool `json:"exchange"`
	LAN      bool `json:"lan"`
	Allowed  bool `json:"allowed"`
	Relayed  bool `json:"relayed"`
	// LatencySeconds is 0 where it is not known.
	LatencySeconds float64 `json:"latencySeconds,omitempty"`
	// RestsUntil is until when it is not asked for anything, for what it did wrong;
	// nil where it is.
	RestsUntil *time.Time `json:"restsUntil,omitempty"`
	// Received and Sent are in bytes.
	Received int64 `json:"received"`
	Sent     int64 `json:"sent"`
}

// PathsRequest names store paths, in full.
type PathsRequest struct {
	Paths []string `json:"paths"`
}

// PathsResponse has one result for each path of the request, in its order.
type PathsResponse struct {
	Results []PathResult `json:"results"`
}

// PathResult says what became of one path: done, or an error.
type PathResult struct {
	Path string `json:"path"`
	// NotFound is true where the error is that the store does not have the path.
	NotFound bool   `json:"notFound,omitempty"`
	Error    string `json:"error,omitempty"`
}

// Found is what is looked for, resolved as far as the node could.
type Found struct {
	StorePath string `json:"storePath,omitempty"`
	NARHash   string `json:"narHash,omitempty"`
	// CID is the key in the DHT, which any IPFS tool can look up.
	CID string `json:"cid"`
}

// Provider is a peer that says it has what was looked for.
type Provider struct {
	ID string `json:"id"`
	// Addresses are multiaddrs without the peer ID.
	Addresses []string `json:"addresses"`
	// Self marks the node that was asked.
	Self bool `json:"self,omitempty"`
}

// FindEvent is one line of the answer to find: first what is looked for, then
// the providers as they turn up, and last done or an error. One field is set.
type FindEvent struct {
	Found    *Found    `json:"found,omitempty"`
	Provider *Provider `json:"provider,omitempty"`
	Done     bool      `json:"done,omitempty"`
	Error    *Error    `json:"error,omitempty"`
}

// ClosureRequest names paths, of which each is meant with all that it refers to.
type ClosureRequest struct {
	Paths []string `json:"paths"`
	// Alone leaves out what they refer to.
	Alone bool `json:"alone,omitempty"`
}

// ClosureEvent is one line of the answer to a ClosureRequest: what there is to say
// of each path, in any order, and last done or an error. One field is set.
type ClosureEvent[P any] struct {
	Path  *P     `json:"path,omitempty"`
	Done  bool   `json:"done,omitempty"`
	Error *Error `json:"error,omitempty"`
}

// UpgradePath is what it would cost to fetch one path. Sizes are in bytes.
type UpgradePath struct {
	StorePath string `json:"storePath"`
	NARSize   int64  `json:"narSize"`
	// Present is true if the store has the path, so that nothing is to be fetched.
	Present bool `json:"present,omitempty"`
	// NotFound is true if nobody has a record of the path, so that nothing is known
	// of its size and of what it refers to.
	NotFound bool `json:"notFound,omitempty"`
	// BySum lies in other paths of the store as it is, ByMaskedSum but for the
	// hash parts of store paths.
	BySum       int64 `json:"bySum"`
	ByMaskedSum int64 `json:"byMaskedSum"`
	// Transfer is the rest, and the manifest.
	Transfer int64 `json:"transfer"`
	// Problem is why it is not known what lies in the store, and so all is taken
	// to be transferred.
	Problem string `json:"problem,omitempty"`
}

// HealthPath is who has one path. Sizes are in bytes.
type HealthPath struct {
	StorePath string `json:"storePath"`
	NARSize   int64  `json:"narSize"`
	// Present is true if the store has the path.
	Present bool `json:"present,omitempty"`
	// NotFound is true if nobody has a record of the path, so that it is not known
	// whom to ask for what, nor what it refers to.
	NotFound bool `json:"notFound,omitempty"`
	// Providers counts the peers that say they have it, or of which the DHT says so:
	// about 20 are as many as a lookup finds. LAN counts those on the local network.
	Providers int `json:"providers"`
	LAN       int `json:"lan,omitempty"`
	// Problem is why it is not known who has it.
	Problem string `json:"problem,omitempty"`
}

// Error is a refusal together with what may be done about it.
type Error struct {
	// Status is the HTTP status.
	Status  int    `json:"status"`
	Message string `json:"error"`
	Hint    string `json:"hint,omitempty"`
}

// Error implements error. The hint is for whoever prints it on a line of its
// own.
func (e *Error) Error() string { return e.Message }
