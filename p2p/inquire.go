package p2p

import (
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

const (
	// maxInquiries bounds the peers of which Inquire tells.
	maxInquiries = 32
	// inquiryTimeout is for the answer of one peer.
	inquiryTimeout = 3 * time.Second
)

var errNoStanding = errors.New("is not asked for a while: what came from it was wrong")

// Inquiry is what a peer says of a NAR.
type Inquiry struct {
	Peer PeerStatus
	// Connected is false for a peer that was found in the DHT, and not asked.
	Connected bool
	// Holds is true if the peer, or the DHT, says so. Peers do not tell of what
	// they may not share.
	Holds bool
	// Err is why the peer was not asked, or has not answered.
	Err error
}

// Inquire asks every peer that a fetch would ask first whether it holds a NAR,
// and looks for others in the DHT until ctx ends; searched is false where there
// is no DHT, or strangers may not be told. It is for the owner, who wants to
// know why a NAR did not come from a neighbour.
func (n *Node) Inquire(ctx context.Context, h nix.NARHash, strangers bool) (answers []Inquiry, searched bool) {
	l := n.live.Load()
	if l == nil {
		return nil, false
	}
	strangers = n.strangers(strangers)
	for _, p := range l.askable(strangers) {
		answers = append(answers, Inquiry{Peer: l.peer(p), Connected: true})
	}
	group := errgroup.Group{}
	for i := range answers {
		group.Go(func() error {
			l.inquire(ctx, h, &answers[i])
			return nil
		})
	}
	_ = group.Wait() // the errors are in the answers
	if !strangers || l.router == nil {
		return answers, false
	}
	known := make(map[peer.ID]bool, len(answers))
	for _, a := range answers {
		known[a.Peer.ID] = true
	}
	for info := range l.finder.Providers(ctx, h, true) {
		if known[info.ID] || len(answers) == maxInquiries {
			continue
		}
		status := l.peer(info.ID)
		answers = append(answers, Inquiry{Peer: status, Connected: len(status.Addrs) > 0, Holds: true})
	}
	return answers, true
}

// askable returns the connected peers that are asked first, those without
// standing too.
func (l *live) askable(strangers bool) (peers []peer.ID) {
	for _, p := range l.host.Network().Peers() {
		if !strangers && !l.familiar(p) || l.nearness(p) == far || !l.speaks(p) {
			continue
		}
		if peers = append(peers, p); len(peers) == maxInquiries {
			break
		}
	}
	return peers
}

func (l *live) inquire(ctx context.Context, h nix.NARHash, a *Inquiry) {
	if !l.standing.Usable(a.Peer.ID) {
		a.Err = errNoStanding
		return
	}
	ctx, cancel := context.WithTimeout(ctx, inquiryTimeout)
	defer cancel()
	holdings, err := l.client.Have(ctx, a.Peer.ID, []nix.NARHash{h})
	if a.Err = err; err == nil {
		a.Holds = holdings[0].Held
	}
}
