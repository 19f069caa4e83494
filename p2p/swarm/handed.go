package swarm

import "github.com/libp2p/go-libp2p/core/peer"

// maxHanded bounds what nobody takes away. Who does so after every read finds at
// most one part for each chunk of the buffer.
const maxHanded = 1024

// handed is whom the bytes came from that were read, in their order.
type handed []part

// part is bytes in a row that came from one peer, or from this machine's store.
type part struct {
	local bool
	from  peer.ID
	bytes int64
}

// add notes that bytes of a slot were read.
func (h *handed) add(s *slot, bytes int64) {
	p := part{local: s.origin != fromPeer, bytes: bytes}
	if !p.local {
		p.from = s.from
	}
	n := len(*h)
	switch {
	case n > 0 && (*h)[n-1].from == p.from && (*h)[n-1].local == p.local:
		(*h)[n-1].bytes += bytes
	case n < maxHanded:
		*h = append(*h, p)
	}
}

// Handed returns whom the bytes came from that were read since the last call, in
// their order. Those from this machine's store have no peer, and took ViaStore.
// It is for who reads.
func (t *Transfer) Handed() []Source {
	w := t.attempt().window
	w.mu.Lock()
	defer w.mu.Unlock()
	sources := make([]Source, len(w.tally.handed))
	for i, p := range w.tally.handed {
		switch {
		case p.local:
			sources[i] = Source{Bytes: p.bytes, Via: ViaStore}
			continue
		case t.names == nil:
			t.names = make(map[peer.ID]string)
		}
		name, known := t.names[p.from]
		if !known {
			name = p.from.String()
			t.names[p.from] = name
		}
		sources[i] = Source{Peer: name, Bytes: p.bytes, Via: w.tally.via[p.from]}
	}
	w.tally.handed = nil
	return sources
}
