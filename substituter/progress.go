package substituter

import (
	"slices"

	"github.com/nar-p2p/nar-p2p/internal/events"
	"github.com/nar-p2p/nar-p2p/internal/meter"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
)

const (
	// maxCells is into how many cells a NAR is divided at most, and leastCell the
	// least size of one, in bytes: about that of a chunk.
	maxCells  = 256
	leastCell = 64 << 10
	// maxGivers bounds who is told apart in one fetch; further ones count as the
	// last.
	maxGivers = 32
)

// Ways that bytes of peers take, as Source.Via has them.
const (
	viaLAN   = "lan"
	viaStore = "store"
)

// Flights returns the fetches under way, the oldest first.
func (s *Server) Flights() []explain.Flight { return s.reports.flights() }

// asked tells who listens how a request ended.
func (s *Server) asked(what string, part nix.HashPart, rec *record, result string) {
	if !s.events.Watched() {
		return
	}
	request := &events.Request{What: what, HashPart: part.String(), Result: result}
	if rec != nil {
		request.StorePath = rec.info.StorePath.String()
	}
	s.events.Publish(events.Event{Kind: events.KindRequest, Request: request})
}

// measure counts bytes of a source that were of use.
func (s *Server) measure(k kind, parts []Source) {
	var amounts meter.Amounts
	for _, part := range parts {
		switch {
		case k == fromStore:
			amounts.Store += part.Bytes
		case k == fromUpstream:
			amounts.Upstream += part.Bytes
		case part.Via == viaStore:
			amounts.Reuse += part.Bytes
		case part.Via == viaLAN:
			amounts.LAN += part.Bytes
		default:
			amounts.Peer += part.Bytes
		}
	}
	s.meter.Add(amounts)
}

// origins tells whom the bytes of a stream come from, in the order in which
// they are read.
type origins struct {
	handed func() []Source // nil where that is not known
	queue  []Source
}

// next returns whom the next n bytes came from. Who is not known has no name.
func (o *origins) next(n int) (parts []Source) {
	if o.handed != nil {
		o.queue = append(o.queue, o.handed()...)
	}
	for left := int64(n); left > 0; {
		if len(o.queue) == 0 {
			return append(parts, Source{Bytes: left})
		}
		part := o.queue[0]
		part.Bytes = min(part.Bytes, left)
		left -= part.Bytes
		if o.queue[0].Bytes -= part.Bytes; o.queue[0].Bytes == 0 {
			o.queue = o.queue[1:]
		}
		parts = append(parts, part)
	}
	return parts
}

// without returns what is left of parts behind their first n bytes.
func without(parts []Source, n int64) []Source {
	for len(parts) > 0 && n >= parts[0].Bytes {
		n -= parts[0].Bytes
		parts = parts[1:]
	}
	if n > 0 && len(parts) > 0 {
		parts = slices.Clone(parts)
		parts[0].Bytes -= n
	}
	return parts
}

// giverOf is who gave a part of what a source brought.
func giverOf(e *entry, part Source) explain.Giver {
	g := explain.Giver{Kind: explain.Kind(e.kind().String()), Name: e.name, Via: part.Via}
	if part.Peer != "" {
		g.Name = part.Peer
	}
	return g
}

// cells is who gave which part of a NAR, coarsely.
type cells struct {
	size   int64 // of a cell, in bytes; 0 before the fetch is planned
	done   int64 // up to where the NAR has come
	givers []explain.Giver
	of     []int // the giver of the last byte, from the first cell on
}

// newCells divides a NAR of which everything from an offset on is to come.
func newCells(size, offset int64) cells {
	c := cells{size: max(leastCell, (size+maxCells-1)/maxCells), done: offset}
	for range (offset + c.size - 1) / c.size {
		c.of = append(c.of, -1)
	}
	return c
}

// add notes who gave the next bytes.
func (c *cells) add(giver explain.Giver, n int64) {
	if c.size == 0 {
		return
	}
	i := slices.IndexFunc(c.givers, func(g explain.Giver) bool { return g.Kind == giver.Kind && g.Name == giver.Name && g.Via == giver.Via })
	switch {
	case i >= 0:
	case len(c.givers) < maxGivers:
		i = len(c.givers)
		c.givers = append(c.givers, giver)
	default:
		i = maxGivers - 1
	}
	c.givers[i].Bytes += n
	if int64(len(c.of))*c.size > c.done {
		c.of[len(c.of)-1] = i // the cell goes on
	}
	for c.done += n; int64(len(c.of))*c.size < c.done; {
		c.of = append(c.of, i)
	}
}

// flight returns a fetch under way as it stands.
func (p *report) flight() explain.Flight {
	fetch := p.snapshot()
	p.mu.Lock()
	defer p.mu.Unlock()
	return explain.Flight{
		Fetch: *fetch, ID: p.id, Done: p.cells.done, CellBytes: p.cells.size,
		Givers: append([]explain.Giver{}, p.cells.givers...), Cells: append([]int{}, p.cells.of...),
	}
}
