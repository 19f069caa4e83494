package swarm

import (
	"time"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// Estimate says what to expect of the peers that are known to hold a NAR.
type Estimate struct {
	// Providers counts them, up to those that one transfer uses.
	Providers int
	// LAN says that one of them is connected on the local network.
	LAN bool
	// Rate is what they have brought of late, all together, in bytes a second; of
	// those of whom it is not known nothing is counted. 0 is not known.
	Rate float64
	// FirstByte is how long the quickest of them usually takes from the wish to
	// the first verified bytes. 0 is not known.
	FirstByte time.Duration
}

// Estimate says what to expect of the peers that are known now to hold a NAR. It
// asks nobody and costs some microseconds.
func (s *Swarm) Estimate(hash nix.NARHash) Estimate {
	var e Estimate
	holders := s.finder.Holders(hash)
	for _, p := range holders[:min(len(holders), maxProviders)] {
		if !s.standing.Usable(p) {
			continue
		}
		e.Providers++
		e.LAN = e.LAN || s.onLAN(p)
		r := s.standing.record(p)
		e.Rate += r.Rate
		if r.FirstByte > 0 && (e.FirstByte == 0 || r.FirstByte < e.FirstByte) {
			e.FirstByte = r.FirstByte
		}
	}
	return e
}
