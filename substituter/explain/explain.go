// Package explain is what a node knows of one store path, and how that reads in
// words: why a request for it would hit or miss, and where its bytes came from
// or would come from.
//
// Its types are the JSON that `p2pctl explain --json` prints (docs/control.md).
// The facts are gathered by package substituter; Conclude turns them into a
// verdict.
package explain

import "time"

// Path is what is known of a store path.
type Path struct {
	HashPart string `json:"hashPart"`
	// StorePath is absent where nobody who was asked knows its name.
	StorePath string    `json:"storePath,omitempty"`
	Time      time.Time `json:"time"`
	// State is what a request for the narinfo would come to.
	State State `json:"state"`
	// Verdict is a sentence on what Nix would get, and why. Notes are further
	// ones: on peers, on the last fetch, on what stands in the way.
	Verdict string   `json:"verdict"`
	Notes   []string `json:"notes"`

	// Store is absent where the local store does not have the path.
	Store *Store `json:"store,omitempty"`
	// Record is what Nix gets, or would get; absent where it gets a 404.
	Record *Record `json:"record,omitempty"`
	// Absent is there while an upstream's 404 is remembered.
	Absent *Absent `json:"absent,omitempty"`
	// Upstreams are in the order in which a request asks them.
	Upstreams []Answer `json:"upstreams"`
	// Conflict is there if trusted keys have signed different things.
	Conflict *Conflict `json:"conflict,omitempty"`
	// Ban is there if wrong bytes have come under the NAR hash.
	Ban   *Ban   `json:"ban,omitempty"`
	Peers *Peers `json:"peers,omitempty"`
	// Plan is how a request for the NAR would begin now; absent where Record is.
	Plan *Plan `json:"plan,omitempty"`
	// Fetch is the last time that the NAR was asked for.
	Fetch *Fetch `json:"fetch,omitempty"`
	// DownloadLimit is how many bytes a second may come over the network now, for all
	// fetches together; 0 for any number.
	DownloadLimit int64 `json:"downloadLimit,omitempty"`
}

// State is what is known of a path. Ignorance is not absence.
type State string

// The states of a path.
const (
	StateFound State = "found"
	// StateAbsent means that all who could have the path say that they do not.
	StateAbsent  State = "absent"
	StateUnknown State = "unknown"
)

// Store is what the local store has.
type Store struct {
	NARHash string `json:"narHash"`
	// NARSize is in bytes.
	NARSize    int64       `json:"narSize"`
	Signatures []Signature `json:"signatures"`
	// Trusted is true if the store's own record would do for Nix.
	Trusted bool `json:"trusted"`
	// Shared is true if peers may have the path; else NotShared says why not.
	Shared    bool   `json:"shared"`
	NotShared string `json:"notShared,omitempty"`
}

// Record is a narinfo that is believed.
type Record struct {
	// Source is an upstream's address, "peer" or "store".
	Source  string `json:"source"`
	NARHash string `json:"narHash"`
	// NARSize is in bytes.
	NARSize        int64  `json:"narSize"`
	References     int    `json:"references"`
	ContentAddress string `json:"contentAddress,omitempty"`
	// Kept is true if it was kept, false if it was found for this answer. Age is
	// since its source gave it, and Took how long that took.
	Kept        bool    `json:"kept"`
	AgeSeconds  float64 `json:"ageSeconds"`
	TookSeconds float64 `json:"tookSeconds,omitempty"`
	// RefreshDue is true if the upstreams will be asked again when it is next
	// asked for.
	RefreshDue bool `json:"refreshDue,omitempty"`
	// Private is true if only private upstreams or the local store know of it.
	Private bool `json:"private"`
	// Strangers is true if strangers may be asked about the NAR; else
	// NoStrangers says why not.
	Strangers   bool   `json:"strangers"`
	NoStrangers string `json:"noStrangers,omitempty"`
	// Proof is why it is believed.
	Proof      Proof       `json:"proof"`
	Signatures []Signature `json:"signatures"`
	// Signers are the different trusted keys that have signed, and Threshold how
	// many are needed.
	Signers   int `json:"signers"`
	Threshold int `json:"threshold"`
}

// Proof is why a record is believed.
type Proof string

// The proofs.
const (
	// BySignatures is enough valid ones of trusted keys.
	BySignatures Proof = "signatures"
	// ByName is a store path that follows from the NAR hash.
	ByName Proof = "name"
	// ByContent is a content address that the bytes must match.
	ByContent Proof = "content"
)

// Signature is one signature and what it is worth.
type Signature struct {
	// Key is the name, of which 100 bytes at most.
	Key     string  `json:"key"`
	Verdict Verdict `json:"verdict"`
}

// Verdict is what a signature is worth.
type Verdict string

// The verdicts on signatures.
const (
	Trusted Verdict = "trusted"
	// UnknownKey is one of a key that is not trusted, valid or not.
	UnknownKey Verdict = "unknown key"
	Invalid    Verdict = "invalid"
)

// Absent is an absence that is remembered.
type Absent struct {
	AgeSeconds float64 `json:"ageSeconds"`
	// LeftSeconds is how long it still counts.
	LeftSeconds float64 `json:"leftSeconds"`
}

// Answer is what an upstream says of the path.
type Answer struct {
	Upstream string `json:"upstream"`
	Private  bool   `json:"private"`
	// Standing is "found", "not believed", "absent", "filtered", "refused",
	// "unreachable" or "left alone".
	Standing string `json:"standing"`
	// TookSeconds is absent where no answer came, UsualSeconds where it is not
	// known how long answers take.
	TookSeconds  float64 `json:"tookSeconds,omitempty"`
	UsualSeconds float64 `json:"usualSeconds,omitempty"`
	// Error is why there is no record, or why it is not believed.
	Error      string      `json:"error,omitempty"`
	NARHash    string      `json:"narHash,omitempty"`
	Signatures []Signature `json:"signatures,omitempty"`
	// Malformed counts signatures that cannot be read.
	Malformed int `json:"malformed,omitempty"`
}

// The standings of an upstream.
const (
	StandingFound       = "found"
	StandingNotBelieved = "not believed"
	StandingAbsent      = "absent"
	StandingFiltered    = "filtered"
	StandingRefused     = "refused"
	StandingUnreachable = "unreachable"
	StandingLeftAlone   = "left alone"
)

// Conflict is evidence: trusted keys have signed things of one path that cannot
// all be true.
type Conflict struct {
	StorePath string `json:"storePath"`
	// Statements are in the order in which they were first seen.
	Statements []Statement `json:"statements"`
}

// Statement is something that at least one trusted key has validly signed.
type Statement struct {
	NARHash string `json:"narHash"`
	// NARSize is in bytes.
	NARSize int64 `json:"narSize"`
	// References are base names. They are absent where there are none, and where
	// they are too many to be kept.
	References []string `json:"references,omitempty"`
	// Fingerprint is the sha-256 of what is signed.
	Fingerprint string `json:"fingerprint"`
	// Signatures are the valid ones of trusted keys.
	Signatures []string `json:"signatures"`
	// Sources are the addresses of upstreams, "peer" and "store".
	Sources []string  `json:"sources"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
}

// Same reports whether two statements say the same.
func (s Statement) Same(other Statement) bool { return s.Fingerprint == other.Fingerprint }

// Ban is what follows from wrong bytes that came under a NAR hash, or under an
// unsigned record.
type Ban struct {
	// Excluded kinds of sources are not asked.
	Excluded []Kind `json:"excluded,omitempty"`
	// Upstreams are the addresses of those that are not.
	Upstreams []string `json:"upstreams,omitempty"`
	// Refused is true if the unsigned record is not believed any more.
	Refused     bool    `json:"refused,omitempty"`
	LeftSeconds float64 `json:"leftSeconds"`
}

// Peers is what peers say of the NAR.
type Peers struct {
	// Connected counts the peers that speak the protocols of nar-p2p, LAN and
	// Allowed those of them on the local network and in the allow-list.
	Connected int `json:"connected"`
	LAN       int `json:"lan"`
	Allowed   int `json:"allowed"`
	// Routing is how many nodes of the DHT are known.
	Routing int `json:"routing"`
	// Searched is true if the DHT was searched.
	Searched bool `json:"searched"`
	// Unasked is why nobody, or not everybody, was asked.
	Unasked string `json:"unasked,omitempty"`
	// Answers are those of the peers that were asked, or found.
	Answers []PeerAnswer `json:"answers"`
}

// PeerAnswer is what one peer says of the NAR.
type PeerAnswer struct {
	ID      string `json:"id"`
	LAN     bool   `json:"lan,omitempty"`
	Allowed bool   `json:"allowed,omitempty"`
	Relayed bool   `json:"relayed,omitempty"`
	// Connected is false for one that was found in the DHT.
	Connected      bool    `json:"connected"`
	LatencySeconds float64 `json:"latencySeconds,omitempty"`
	// Holds is true if it says so, or if the DHT says so of it. A peer does not
	// tell of what it may not share.
	Holds bool `json:"holds"`
	// Error is why it did not answer.
	Error string `json:"error,omitempty"`
}

// Holders counts the peers that hold the NAR.
func (p *Peers) Holders() (n int) {
	if p != nil {
		for _, a := range p.Answers {
			if a.Holds {
				n++
			}
		}
	}
	return n
}
