// Package events tells whoever listens what a node does: requests, fetches with
// their sources, peers, announcements, and what went wrong.
//
// The parts of the node publish to one Hub, which never makes them wait. Each
// subscriber has a queue of its own; one that is too slow loses the oldest
// events, and is told how many.
package events

import (
	"time"

	"github.com/nar-p2p/nar-p2p/substituter/explain"
)

// Kind says what an event is about. It names the field that is set.
type Kind string

// The kinds of events.
const (
	KindRequest  Kind = "request"
	KindFetch    Kind = "fetch"
	KindPeer     Kind = "peer"
	KindAnnounce Kind = "announce"
	KindSharing  Kind = "sharing"
	KindProblem  Kind = "problem"
	// KindLost comes in place of events that the subscriber was too slow for.
	KindLost Kind = "lost"
)

// Event is something that happened.
type Event struct {
	Time time.Time `json:"time"`
	Kind Kind      `json:"kind"`

	Request *Request `json:"request,omitempty"`
	// Fetch comes twice: when it starts, its result "running", and when it has
	// ended.
	Fetch    *explain.Fetch `json:"fetch,omitempty"`
	Peer     *Peer          `json:"peer,omitempty"`
	Announce *Announce      `json:"announce,omitempty"`
	Sharing  *Sharing       `json:"sharing,omitempty"`
	Problem  *Problem       `json:"problem,omitempty"`
	Lost     uint64         `json:"lost,omitempty"`
}

// Request is a client's question that was answered.
type Request struct {
	// What is "narinfo" or "nar".
	What string `json:"what"`
	// HashPart is that of the path. StorePath is absent where nobody knows its
	// name.
	HashPart  string `json:"hashPart"`
	StorePath string `json:"storePath,omitempty"`
	// Result is as in the metrics nar_p2p_narinfo_requests_total and
	// nar_p2p_nar_requests_total.
	Result string `json:"result"`
}

// Peer is one that was met, or that has gone.
type Peer struct {
	ID        string `json:"id"`
	Connected bool   `json:"connected"`
	// Exchange tells whether it speaks the protocols of nar-p2p.
	Exchange  bool     `json:"exchange"`
	LAN       bool     `json:"lan,omitempty"`
	Relayed   bool     `json:"relayed,omitempty"`
	Agent     string   `json:"agent,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
}

// Announce says how far announcing has come, whenever that has changed.
type Announce struct {
	Keys      int   `json:"keys"`
	Waiting   int   `json:"waiting"`
	SentBytes int64 `json:"sentBytes"`
}

// Sharing says that the owner has paused or resumed sharing, or that it rests.
type Sharing struct {
	Paused bool `json:"paused"`
	// Until is absent where it is for good.
	Until time.Time `json:"until,omitzero"`
	// Metered says that nothing is shared, paused or not, since the connection is paid
	// for by volume.
	Metered bool `json:"metered,omitempty"`
}

// Problem is something that the owner may want to know of.
type Problem struct {
	// Severity is "warn" or "error".
	Severity string `json:"severity"`
	// Part is the part of the node that it is about.
	Part string `json:"part"`
	// Text is a sentence.
	Text string `json:"text"`
}
