package explain

import "time"

// Fetch is how the bytes of a NAR came to whoever asked for it, or why they did
// not. Times are in seconds since it started.
type Fetch struct {
	StorePath string `json:"storePath"`
	NARHash   string `json:"narHash"`
	// NARSize and Offset are in bytes; a request that resumes begins at an
	// offset.
	NARSize int64     `json:"narSize"`
	Offset  int64     `json:"offset,omitempty"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	Result  Result    `json:"result"`
	// Error is why it failed.
	Error string `json:"error,omitempty"`
	// Order says why the sources were to start in this order.
	Order string `json:"order"`
	// Excluded are the kinds of sources that had given wrong bytes before.
	Excluded []Kind `json:"excluded,omitempty"`
	// Sources are in the order in which they were to start.
	Sources []Source `json:"sources"`
}

// Why sources start in the order in which they do. The local store comes first
// in any case.
const (
	NoPeers       = "this node has no peers"
	HolderKnown   = "peers first: one that holds it is known"
	UpstreamsDown = "peers first: no upstream works"
	NoHolderKnown = "upstreams first: no peer that holds it is known yet"
	// UpstreamFaster is by a good deal: see docs/fetching.md.
	UpstreamFaster = "upstreams first: they are expected to be done before the peers that hold it"
	PeersLied      = "upstreams first: wrong bytes have come from peers"
	NotWorthSearch = "upstreams alone while they deliver: a search for peers would take longer"
)

// Kind is a kind of source.
type Kind string

// The kinds of sources.
const (
	FromStore    Kind = "store"
	FromPeers    Kind = "peer"
	FromUpstream Kind = "upstream"
)

// Result is what became of a fetch.
type Result string

// The results of a fetch.
const (
	Running Result = "running"
	Served  Result = "served"
	// Failed is one of which the client got nothing, Broken one that ended in
	// the middle, Gone one that the client did not wait for.
	Failed Result = "failed"
	Broken Result = "broken"
	Gone   Result = "gone"
)

// Source is one source's part in a fetch.
type Source struct {
	Kind Kind `json:"kind"`
	// Name is an upstream's address.
	Name string `json:"name,omitempty"`
	// AfterSeconds is how long the sources before it could go without progress
	// until it joined.
	AfterSeconds float64 `json:"afterSeconds"`
	// Expected is absent where nothing was known to expect.
	Expected *Expected `json:"expected,omitempty"`
	Bytes    int64     `json:"bytes"`
	// Reused is the part of Bytes that peers did not send, since it came out of
	// other paths of the local store; absent where there is none.
	Reused *Reused `json:"reused,omitempty"`
	// Wasted counts the bytes that came in vain.
	Wasted int64 `json:"wasted,omitempty"`
	// HeldSeconds is for how long the limit for downloads has held it up.
	HeldSeconds float64 `json:"heldSeconds,omitempty"`
	// Peers are those that the bytes came from, the largest part first.
	Peers []Part `json:"peers,omitempty"`
	// Attempts is empty for a source whose turn did not come.
	Attempts []Attempt `json:"attempts"`
}

// Plan is how a fetch would begin.
type Plan struct {
	// Order says why the sources would start in this order.
	Order string `json:"order"`
	// Sources are in that order.
	Sources []Planned `json:"sources"`
}

// Planned is a source's part in a plan.
type Planned struct {
	Kind Kind `json:"kind"`
	// Name is an upstream's address.
	Name string `json:"name,omitempty"`
	// AfterSeconds is how long the sources before it could go without progress
	// until it joined.
	AfterSeconds float64 `json:"afterSeconds"`
	// Expected is absent where nothing is known to expect.
	Expected *Expected `json:"expected,omitempty"`
}

// Expected is what was expected of a source. What was not known is absent.
type Expected struct {
	// FirstByteSeconds and Seconds are the times to the first and the last byte.
	FirstByteSeconds float64 `json:"firstByteSeconds,omitempty"`
	BytesPerSecond   float64 `json:"bytesPerSecond,omitempty"`
	Seconds          float64 `json:"seconds,omitempty"`
	// Local is the share of the bytes, from 0 to 1, that is expected to lie in
	// other paths of the local store.
	Local float64 `json:"local,omitempty"`
}

// Reused counts bytes from other paths of the local store.
type Reused struct {
	// BySum were there as they are, ByMaskedSum but for the hash parts of store
	// paths.
	BySum       int64 `json:"bySum"`
	ByMaskedSum int64 `json:"byMaskedSum"`
}

// Part is a peer's part in a fetch.
type Part struct {
	Peer  string `json:"peer"`
	Bytes int64  `json:"bytes"`
	// Via is the way that they took: "lan", "direct" or "relay".
	Via string `json:"via,omitempty"`
}

// Flight is a fetch under way, with who gave which part of the NAR.
type Flight struct {
	Fetch
	// ID tells flights of one run of the node apart.
	ID uint64 `json:"id"`
	// Done is up to where the NAR has come, in bytes.
	Done int64 `json:"done"`
	// Givers are those that bytes came from so far.
	Givers []Giver `json:"givers"`
	// CellBytes is the size of the cells into which the NAR is divided, in bytes.
	// Cells are those that have come, from the first on: of each the number of the
	// giver of its last byte, or -1 for one before the offset.
	CellBytes int64 `json:"cellBytes"`
	Cells     []int `json:"cells"`
}

// Giver is a source that bytes came from: the local store, an upstream, or a
// peer.
type Giver struct {
	Kind Kind `json:"kind"`
	// Name is an upstream's address or a peer's ID.
	Name string `json:"name,omitempty"`
	// Via is the way that bytes of peers took: "lan", "direct" or "relay"; or
	// "store" for those that peers need not send, since they lie in other paths of
	// the local store.
	Via string `json:"via,omitempty"`
	// Bytes are those that were of use.
	Bytes int64 `json:"bytes"`
}

// Attempt is one attempt at a source.
type Attempt struct {
	Start float64 `json:"start"`
	Why   Joining `json:"why,omitempty"`
	// FirstByte is absent where none came.
	FirstByte float64 `json:"firstByte,omitempty"`
	Stop      float64 `json:"stop"`
	Bytes     int64   `json:"bytes"`
	End       End     `json:"end"`
	Error     string  `json:"error,omitempty"`
}

// Joining is why a source started when it did.
type Joining string

// Why sources start.
const (
	// AtOnce is the first, WhenFailed one in the place of another.
	AtOnce     Joining = "at once"
	WhenFailed Joining = "failed"
	// WhenSilent joined since nothing had come for a while, WhenSlow since too
	// little had, and WhenFaster since it was expected to be done earlier.
	WhenSilent Joining = "silent"
	WhenSlow   Joining = "slow"
	WhenFaster Joining = "faster"
)

// End is how an attempt ended.
type End string

// The ends of an attempt.
const (
	UnderWay End = "running"
	Complete End = "complete"
	// Late is one that was cancelled since another source was quicker.
	Late End = "late"
	// Unavailable is one that brought nothing, BrokeOff one that ended in the
	// middle, TooSlow one that fell behind another for good.
	Unavailable End = "failed"
	BrokeOff    End = "broke off"
	TooSlow     End = "slow"
	// Wrong is one whose bytes were not the NAR that was signed.
	Wrong End = "wrong"
	// Stopped is one that ended with the request.
	Stopped End = "stopped"
)
