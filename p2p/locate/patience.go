package locate

import "time"

// defaultPatience is how long peers may take to answer until others are looked for
// instead: many times a round trip.
const defaultPatience = 500 * time.Millisecond

// patience is how long sources may take to answer about a NAR while the DHT is
// left alone. Their answers still count after that. The other waits are in
// proportion to it.
type patience time.Duration

// sources is for the sources together. A record is what Nix waits for.
func (p patience) sources(k kind) time.Duration {
	if k == records {
		return 3 * time.Duration(p) / 5
	}
	return time.Duration(p)
}

// helpers is for the helpers alone to be asked for a record.
func (p patience) helpers() time.Duration { return time.Duration(p) / 10 }

// walk is for a walk to wait for the answer of whoever another walk has found, who
// must be connected with first, and hold for all of those.
func (p patience) walk() time.Duration { return 2 * time.Duration(p) }
func (p patience) hold() time.Duration { return 6 * time.Duration(p) }

// search is for Providers to leave it at what the sources know, where that is less
// than enough, before it searches the DHT for more. Most NARs have arrived by then.
func (p patience) search() time.Duration { return 4 * time.Duration(p) }
